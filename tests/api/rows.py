"""What users of ipyparallel know, row by row, and the test that shows that it is so here.

A row without a test says why: it is left out, or it is different. ``test_rows.py`` looks whether the tests exist and
whether ``docs/coming-from-ipyparallel.md`` (made from this file by ``docs/coming.py``) is up to date.
"""

from __future__ import annotations

from typing import NamedTuple

FILES = {
    "conditional": "client/test_conditional.py",
    "imports": "client/test_imports.py",
    "own": "client/test_own.py",
    "picklers": "wire/test_picklers.py",
    "policies": "policies/test_policies.py",
    "policies_in_use": "policies/test_in_use.py",
    "real": "test_functions.py",
    "references": "wire/test_references.py",
    "remote": "client/test_functions.py",
    "balanced": "client/test_balanced.py",
    "cli": "cli/test_commands.py",
    "client": "client/test_client.py",
    "cluster": "cluster/test_cluster.py",
    "config": "test_config.py",
    "connection": "test_connection.py",
    "core": "core/test_balanced.py",
    "e2e": "test_end_to_end.py",
    "engines": "client/test_engines.py",
    "errors": "test_errors.py",
    "exceptions": "test_exceptions.py",
    "explaining": "test_explaining.py",
    "firsterror": "test_firsterror.py",
    "functions": "wire/test_functions.py",
    "growing": "client/test_growing.py",
    "interrupting": "test_interrupting.py",
    "lazymap": "client/test_lazymap.py",
    "losses": "test_losses.py",
    "magics": "client/test_magics.py",
    "matching": "core/test_matching.py",
    "namespace": "engine/test_namespace.py",
    "parser": "cli/test_parser.py",
    "partition": "client/test_partition.py",
    "pickling": "wire/test_pickling.py",
    "publishing": "test_publishing.py",
    "queries": "core/test_queries.py",
    "questions": "test_questions.py",
    "results": "client/test_results.py",
    "retyping": "wire/test_exceptions.py",
    "runner": "engine/test_runner.py",
    "sessions": "test_sessions.py",
    "shell": "engine/test_shell.py",
    "stored": "client/test_stored.py",
    "views": "client/test_views.py",
    "worlds": "cluster/test_worlds.py",
}
"""Files of tests, by what they are called below."""

NOT_YET = "not yet"


class Row(NamedTuple):
    """One thing that people know. ``test``: ``file:name`` without ``test_``; ``note``: why none, or a difference."""

    name: str
    test: str = ""
    note: str = ""


NAMES = [
    Row("`Client`, `Cluster`, `ClusterManager`", "client:every_public_name_exists_and_others_are_attribute_errors"),
    Row("`DirectView`, `LoadBalancedView`", "client:every_public_name_exists_and_others_are_attribute_errors"),
    Row("`BroadcastView`, `ViewExecutor`", "views:a_broadcast_view_is_a_direct_view"),
    Row(
        "`AsyncResult`, `AsyncMapResult`, `AsyncHubResult`",
        "publishing:another_client_that_follows_a_task_sees_its_data",
    ),
    Row("`remote`, `RemoteFunction`", "remote:a_remote_function_runs_on_the_engines_of_its_view"),
    Row("`parallel`, `ParallelFunction`", "remote:a_parallel_function_gets_pieces_and_its_results_are_joined"),
    Row(
        "`interactive`",
        "conditional:an_interactive_function_reads_the_namespace_of_the_engine",
        "free variables are supported",
    ),
    Row("`require`", "real:a_task_goes_where_its_module_is", "works with cloudpickle and dill"),
    Row(
        "`depend`, `dependent`",
        "real:a_task_runs_only_where_its_condition_holds",
        "if no engine can do it the task fails; ipyparallel waits for ever",
    ),
    Row(
        "`Reference`",
        "real:each_engine_uses_its_own_value_of_a_reference",
        "anywhere in a value, not only on its top level",
    ),
    Row("`Dependency`", "balanced:dependencies_can_be_ids_results_and_lists_of_them"),
    Row(
        "all names of errors; `collect_exceptions`, `wrap_exception`, `unwrap_exception`",
        "errors:the_names_that_users_of_ipyparallel_know_mean_what_they_meant",
    ),
    Row("`TimeoutError` is the builtin", "results:a_timeout_says_what_is_missing_and_from_whom"),
    Row("`ALL_COMPLETED`, `FIRST_COMPLETED`, `FIRST_EXCEPTION`", "results:waiting_for_some_gives_sets_of_pieces"),
    Row(
        "`use_dill`, `use_cloudpickle`, `use_pickle`",
        "real:other_clients_do_not_notice_that_one_uses_dill",
        "methods of views only; for one client, not for the process",
    ),
    Row(
        "`can`, `uncan`, `can_map`, `uncan_map`, `serialize_object`, `PrePickled`, ...",
        note="left out: pickle protocol 5 and cloudpickle do it; register a reducer with `copyreg`",
    ),
    Row("`bind_kernel`", note=NOT_YET),
    Row("`register_joblib_backend`", note="not yet: integrations follow later"),
    Row("`__version__`, `version_info`", "errors:the_version_is_also_a_tuple"),
    Row("`ippmpi.error`", "errors:the_names_that_users_of_ipyparallel_know_mean_what_they_meant"),
    Row("`ippmpi.datapub`", "publishing:outside_an_engine_nothing_can_be_published"),
    Row("`ippmpi.util`, `ippmpi.serialize`, `ippmpi.joblib`", note=NOT_YET),
    Row("`ippmpi.apps`", note="left out: deprecated shims"),
]

CONNECT = [
    Row("`Client()`: the file of a profile, waited for", "client:a_missing_profile_file_is_waited_for_then_named"),
    Row("`Client(path)`, `url_file=`", "client:a_named_file_must_be_there"),
    Row("`Client(dict)`", "client:a_dict_must_be_the_record_of_a_connection"),
    Row('`Client("tcp://...")` is refused', "client:an_address_is_not_a_connection_file"),
    Row("`profile`, `profile_dir`, `cluster_id`", "connection:names_follow_the_profile_rules"),
    Row("`timeout`", "client:a_hub_that_does_not_answer_is_a_timeout"),
    Row("`context`, `debug`, `**extra_args`", note="left out: there is no ZeroMQ context and no Session of yours"),
    Row("`sshserver`, `sshkey`, `password`, `paramiko`", note="not yet: one `ssh -L` to the one port does it"),
    Row("`rc.ids`, `len(rc)`", "engines:ids_are_sorted_and_fresh"),
    Row("`for view in rc`", "engines:iterating_a_client_gives_views_of_single_engines"),
    Row("`rc[0]`, `rc[-1]`", "engines:an_int_names_an_engine_and_a_negative_one_counts_from_the_end"),
    Row(
        "`rc[::2]`, `rc[[0, 1]]`, `rc[0, 1]`",
        "engines:slices_lists_tuples_and_arrays_name_several_engines",
        "numpy integers and arrays work too",
    ),
    Row("`rc[99]`: `IndexError`", "engines:an_engine_that_never_was_is_an_index_error_with_its_number"),
    Row(
        "an int gives bare values, lists and slices give lists",
        "views:an_int_target_gives_a_bare_value_and_a_list_a_list",
    ),
    Row('`rc[:]` is frozen, `"all"` is live', "engines:a_slice_is_frozen_and_all_is_live"),
    Row("no engines: `NoEnginesRegistered`", "engines:without_engines_every_view_says_what_to_do"),
    Row("`rc.block`", "views:block_decides_whether_apply_waits"),
    Row("`with Client() as rc`, `rc.close()`", "client:a_client_is_a_context_manager"),
    Row("`rc.activate()`, magics by the first client in IPython", "magics:a_client_in_ipython_brings_the_magics"),
    Row("`rc.profile`", "questions:obsolete_names_still_exist"),
    Row("`rc.spin()`, `spin_thread`, `stop_spin_thread`", "questions:obsolete_names_still_exist"),
]

CLIENT = [
    Row(
        "`rc.history`, `rc.outstanding`",
        "questions:the_history_is_of_all_clients_in_order",
        "the history is of the last 10,000 tasks",
    ),
    Row(
        "`rc.results`, `rc.metadata` as dicts",
        note="different: results belong to who holds them; `rc.results()` lists what is stored",
    ),
    Row("`rc.direct_view`", "engines:a_slice_is_frozen_and_all_is_live"),
    Row("`rc.load_balanced_view`", "balanced:views_show_their_candidates_and_size"),
    Row("`rc.broadcast_view`", "views:a_broadcast_view_is_a_direct_view", "`'all'` is whoever is there at each call"),
    Row("`rc.executor`", "balanced:a_view_is_an_executor"),
    Row("`rc.wait`", "client:waiting_for_jobs_takes_ids_results_and_other_futures"),
    Row("`rc.wait_interactive`", "questions:waiting_can_show_a_bar"),
    Row("`rc.wait_for_engines`", "engines:waiting_for_engines_ends_when_enough_have_come"),
    Row("`wait_for_engines`: `EngineError` when one is lost", "engines:waiting_for_engines_ends_when_one_is_lost"),
    Row("`rc.send_signal`", "client:signals_go_by_number_or_name"),
    Row("`rc.abort`", "client:abort_takes_ids_results_and_lists"),
    Row("`rc.clear`", "questions:namespaces_are_cleared"),
    Row("`rc.shutdown`", "client:shutdown_of_the_hub_closes_the_client"),
    Row("`rc.get_result`", "stored:what_is_stored_is_replayed_and_then_followed"),
    Row(
        "`get_result` from another process, after a restart",
        "sessions:the_work_of_a_killed_client_goes_on_and_another_process_gets_all_of_it",
    ),
    Row(
        "`rc.resubmit`",
        "questions:tasks_are_done_again_where_they_were_done",
        "direct calls run on the same engines again; arguments of more than 16 KB are not kept",
    ),
    Row("`rc.result_status`", "questions:states_and_values_of_tasks"),
    Row("`rc.queue_status`", "client:queue_status_is_by_engine", "engines that are gone are not listed"),
    Row("`rc.hub_history`", "questions:the_history_is_of_all_clients_in_order"),
    Row("`rc.db_query`", "questions:conditions_choose_records"),
    Row(
        "`rc.purge_results`, `purge_hub_results`, `purge_local_results`",
        "questions:results_are_purged_and_nobody_finds_them_again",
    ),
    Row("`rc.purge_everything`", "questions:results_are_purged_and_nobody_finds_them_again"),
    Row("every question has a time-out", "client:no_question_waits_for_ever", "ipyparallel waits for ever"),
    Row("`rc.become_dask`, `stop_dask`", note="not yet: integrations follow later"),
    Row(
        "`send_apply_request`, `send_execute_request`, `create_message_futures`, `rc.session`",
        note="left out: the protocol is another one",
    ),
]

VIEWS = [
    Row("`apply`, `apply_async`, `apply_sync`", "views:block_decides_whether_apply_waits"),
    Row("any keyword can be an argument of the function", "views:any_keyword_can_be_an_argument_of_the_function"),
    Row("`map`, `map_async`, `map_sync`", "views:a_map_is_like_the_builtin"),
    Row(
        "`map(return_exceptions=True)`",
        "views:failures_of_a_map_can_be_values_in_their_places",
        "the list is as long as the input",
    ),
    Row("`imap`", "views:imap_iterates"),
    Row("`imap` of a load-balanced view: lazy, back-pressure", "lazymap:an_endless_iterator_is_read_only_so_far_ahead"),
    Row("`map(ordered=False)`", "balanced:an_unordered_map_yields_first_come_first_served"),
    Row("`map(chunksize=...)`", "balanced:a_map_is_a_task_per_chunk", "without it tasks grow while items are short"),
    Row("`execute`", "views:execute_always_returns_a_result"),
    Row("`run`", "views:run_reads_the_file_on_this_machine"),
    Row("`push`, `pull`, `update`, `get`", "views:pushed_names_can_be_pulled"),
    Row('`view["a"]`, `view["a"] = x`', "views:a_view_is_indexed_by_names"),
    Row(
        "`scatter`, `gather`",
        "views:gather_is_the_inverse_of_scatter",
        "a scattered `range` comes back as one flat list",
    ),
    Row("`scatter(flatten=True)`", "views:flatten_unwraps_pieces_of_one_element"),
    Row("`clear`", "views:clear_empties_the_namespace"),
    Row("`set_flags`, `temp_flags`", "views:flags_are_set_together_or_not_at_all"),
    Row(
        "`temp_flags` in several threads", "views:temporary_flags_are_those_of_one_thread", "ipyparallel mixes them up"
    ),
    Row("`label`", "questions:records_have_what_is_known_of_a_task"),
    Row(
        "`track`, `sent`, `wait_for_send`",
        "views:sent_is_true_once_the_hub_has_a_large_content",
        "always known, also without `track=True`",
    ),
    Row("`remote`, `parallel` of a view", "remote:threads_that_call_one_remote_function_do_not_disturb_each_other"),
    Row(
        "`sync_imports`, `importer`",
        "imports:a_view_announces_imports_and_raises_what_failed_on_engines",
        "`as` names are bound there too",
    ),
    Row(
        "`use_dill`, `use_cloudpickle`, `use_pickle`",
        "real:other_clients_do_not_notice_that_one_uses_dill",
        "methods of views only; for one client, not for the process",
    ),
    Row("`abort`, `shutdown`, `queue_status` of a view", "own:a_view_asks_for_its_own_engines"),
    Row("`purge_results`, `get_result` of a view", "own:a_result_of_the_history_is_found_by_its_position"),
    Row("`wait`, `wait_interactive`, `spin` of a view", "own:a_view_waits_for_its_own_calls"),
    Row(
        "`history`, `outstanding`, `results` of a view",
        "own:every_call_of_a_view_is_in_its_history_in_order",
        "`results` are fetched when asked for",
    ),
    Row("`activate`", "magics:activating_outside_ipython_is_a_warning"),
    Row("`executor`", "balanced:a_view_is_an_executor"),
    Row("`register_joblib_backend` of a view", note="not yet: integrations follow later"),
    Row(
        "`targets`, `after`, `follow`, `timeout`, `retries` of a load-balanced view",
        "balanced:flags_become_the_placement",
        "`timeout=None` is no limit",
    ),
    Row("`view.timeout` below 0", "balanced:a_negative_timeout_is_refused"),
    Row(
        "Ctrl-C while a call blocks",
        "interrupting:ctrl_c_ends_a_blocking_call",
        "raises `KeyboardInterrupt`; ipyparallel swallows it",
    ),
    Row("`len(view)`, `repr(view)`", "views:a_view_shows_its_engines"),
    Row(
        "`BroadcastView(is_coalescing=...)`",
        "views:a_broadcast_view_is_a_direct_view",
        "accepted; each engine keeps its own result and error",
    ),
]

RESULTS = [
    Row("`get(timeout)`", "results:a_timeout_says_what_is_missing_and_from_whom"),
    Row("`get(return_exceptions=True)`", "results:errors_can_be_values"),
    Row("`get(return_when=FIRST_EXCEPTION)`", "results:the_first_failure_can_be_raised_while_others_are_still_at_work"),
    Row("`r`, `result()`, `get_dict()`, `result_dict`", "results:a_result_waits_for_all_its_engines"),
    Row(
        "`get(return_when=FIRST_COMPLETED)` warns and is ignored",
        "results:the_first_completed_is_for_wait_and_get_says_so",
        "other names: `ValueError`",
    ),
    Row("a negative timeout is no limit", "results:a_negative_timeout_is_no_limit"),
    Row("`ready`, `successful`, `done`", "results:a_result_waits_for_all_its_engines"),
    Row("`running`, `cancelled`", "results:a_pending_result_is_neither_running_nor_cancelled"),
    Row("`wait`", "results:a_timeout_says_what_is_missing_and_from_whom"),
    Row("`wait(return_when=...)`", "results:waiting_for_some_gives_sets_of_pieces"),
    Row("`wait(return_when=...)` of a map", "results:waiting_for_some_of_a_map_gives_pieces_that_are_lists"),
    Row("`wait_for_output`", "results:output_is_there_while_the_call_runs"),
    Row("`wait_for_send`, `sent`", "views:sent_is_true_once_the_hub_has_a_large_content"),
    Row("`wait_interactive`", "results:waiting_can_show_a_bar", "returns whether all came"),
    Row("`wait_interactive(return_when=...)`", "results:an_interactive_wait_can_end_at_the_first_result"),
    Row("`abort`", "results:abort_takes_back_what_waits"),
    Row(
        "`cancel`",
        "interrupting:cancel_interrupts_what_runs_drops_what_waits_and_leaves_world_and_data",
        "it reaches the engines; in ipyparallel the work goes on",
    ),
    Row("`split`, `join`", "results:results_are_joined_and_split_again"),
    Row("pieces of a map are lists", "results:the_pieces_of_a_map_are_joined_to_lists_of_its_chunks"),
    Row("`add_done_callback`", "results:done_callbacks_can_read_the_value_but_not_wait"),
    Row("`repr`: `<AsyncResult(name): pending>`", "results:a_result_waits_for_all_its_engines"),
    Row(
        "`explain`",
        "explaining:what_runs_and_what_is_behind_it_on_which_rank",
        "new: says why a result is not there yet; also `client.explain()` and `ipcluster status --why`",
    ),
    Row(
        "an error of one rank while others go on",
        "firsterror:the_first_failure_is_told_within_a_second_while_other_ranks_go_on",
        "is shown within a second; ipyparallel says nothing before all have answered",
    ),
    Row("iteration", "results:iteration_yields_values_in_order_as_they_arrive"),
    Row("a single result cannot be iterated", "results:a_single_result_is_a_bare_value_and_is_not_iterable"),
    Row("`ar[0]`, `ar[1:3]`", "results:indexing_needs_completion"),
    Row('`ar["started"]`, `ar.started`, `metadata`', "results:metadata_is_a_list_or_for_one_engine_a_record"),
    Row(
        "`engine_id`, `engine_uuid`, `label`, `msg_ids`",
        "results:metadata_names_the_process_of_an_engine",
        "`after` and `follow` are not among the metadata",
    ),
    Row(
        "`stdout`, `stderr`, `outputs`",
        "results:output_is_there_while_the_call_runs",
        "carriage returns stay; what they erase is left out where it is shown",
    ),
    Row("`execute_result`, `execute_input`", "views:execute_that_is_not_silent_gives_out_values_and_output"),
    Row("`data`, live", "publishing:published_data_is_seen_while_the_function_runs_and_the_last_of_it_stays"),
    Row("`error`", "results:errors_can_be_values"),
    Row("`len(ar)`, `progress`", "growing:values_come_while_most_is_not_sent_yet"),
    Row("`elapsed`, `wall_time`, `serial_time`, `timedelta`", "results:times_are_aware_and_add_up"),
    Row("`submitted`, `started`, `completed`, `received`", "results:times_are_aware_and_add_up"),
    Row("`display_outputs(groupby=...)`", "results:output_is_displayed_in_groups"),
    Row("`display_outputs(result_only=True)`", "results:results_only_are_displayed_in_all_groupings"),
    Row("`stream_output`", "results:streamed_output_comes_line_by_line_with_its_engine"),
    Row(
        "`stream_output`: of many failures the first `tb_limit` in full",
        "results:of_many_failures_the_first_ones_are_streamed_in_full",
    ),
    Row("`stream_output`: `Out` values", "results:out_values_are_streamed_and_progress_bars_are_not_repeated"),
    Row("`owner`", "results:metadata_names_the_process_of_an_engine", "always True"),
    Row("it is a `concurrent.futures.Future`", "results:results_and_their_pieces_work_with_concurrent_futures"),
    Row("`await ar`", "results:a_result_can_be_awaited", "ipyparallel: TypeError"),
    Row("`AsyncMapResult`", "balanced:an_unordered_map_yields_first_come_first_served"),
    Row(
        "`AsyncHubResult`",
        "publishing:another_client_that_follows_a_task_sees_its_data",
        "values and output come as they do to the owner, nothing polls",
    ),
    Row("`MessageFuture`", note="left out: internal"),
]

ERRORS = [
    Row("`RemoteError`: `ename`, `evalue`, `traceback`, `engine_info`", "errors:an_error_says_where_it_happened"),
    Row(
        "`except ZeroDivisionError:` around a remote call",
        "exceptions:a_remote_exception_is_caught_by_its_type",
        "ipyparallel: only `RemoteError`",
    ),
    Row("single-target errors are not wrapped", "views:a_failure_of_a_single_engine_is_raised_as_it_is"),
    Row(
        "`CompositeError`: `elist`, `raise_exception`, `print_traceback`, `render_traceback`",
        "errors:one_failure_of_a_composite_is_raised_or_shown",
    ),
    Row(
        "`except*` around a call on several engines",
        "exceptions:except_star_sorts_the_failures_of_several_engines",
        "new: `CompositeError` is an `ExceptionGroup`",
    ),
    Row(
        "the remote traceback in a script",
        "errors:the_remote_traceback_is_shown_once_by_python",
        "new: as a note of the exception",
    ),
    Row("`tb_limit`", "errors:a_large_composite_shows_the_first_failures_and_counts_the_rest"),
    Row(
        "`StopIteration`, `CancelledError`, `SystemExit` of a task",
        "exceptions:what_would_confuse_the_caller_is_a_plain_remote_error",
    ),
    Row("`AlreadyDisplayedError`, `original_error`", "magics:errors_are_shown_at_once_and_then_counted"),
    Row(
        "`EngineError` for a lost engine",
        "results:a_lost_engine_is_an_engine_error_and_a_remote_error",
        "it is one; in ipyparallel only its `ename` says so",
    ),
    Row(
        "`TaskAborted`, `TaskTimeout`, `InvalidDependency`, `ImpossibleDependency`, `UnmetDependency`",
        "results:other_failures_are_of_the_class_they_are_named_after",
        "aborted tasks raise, they are not values in a list",
    ),
    Row(
        "`DependencyTimeout`, `TaskRejectError`",
        "errors:the_names_that_users_of_ipyparallel_know_mean_what_they_meant",
        "other names of `TaskTimeout` and `UnmetDependency`",
    ),
]

MAGICS = [
    Row("`%px`", "magics:px_runs_a_line_and_shows_what_it_prints_and_gives"),
    Row("`%%px` with its options", "magics:cells_take_targets_names_and_run_here_too"),
    Row("`%pxconfig`", "magics:pxconfig_sets_defaults"),
    Row("`%pxresult`", "magics:pxresult_shows_the_last_one"),
    Row("`%autopx`", note="not yet: magics follow later"),
    Row('suffix by `activate("x")`', "magics:a_client_in_ipython_brings_the_magics"),
    Row("Ctrl-C in a cell", "magics:ctrl_c_interrupts_the_engines_and_returns"),
]

CLUSTER = [
    Row("coroutines, each with `_sync`", "cluster:every_blocking_method_has_its_coroutine"),
    Row("`start_and_connect`, `with Cluster() as rc`", "cluster:a_cluster_starts_works_and_leaves_nothing"),
    Row("`from_file`, `from_dict`, `to_dict`", "cluster:a_saved_cluster_is_json_and_comes_back"),
    Row("`from_file` in another process", "cluster:another_process_can_find_and_stop_a_cluster"),
    Row("`load_profile`", note=NOT_YET),
    Row("`start_engines`, `stop_engines`", "cluster:engine_sets_come_and_go_while_the_cluster_runs"),
    Row("`restart_engines`", "cluster:engines_of_a_restarted_set_have_their_ids_again", "the ids stay"),
    Row("`signal_engines`", "cluster:a_signal_reaches_the_engines"),
    Row("`ClusterManager`", "cluster:the_manager_lists_running_clusters_of_all_profiles"),
    Row("`ipcluster start`, `stop`, `list`, `status`", "cli:start_list_status_stop"),
    Row("`ipcluster clean`", "cli:stale_files_are_cleaned"),
    Row("`ipcluster start --daemonize`", "cli:a_daemon_stays_until_it_is_stopped"),
    Row("`ipcontroller`, `ipengine` by hand", "cli:controller_and_engine_can_be_started_by_hand"),
    Row("the options that people know", "parser:the_line_that_people_know_is_understood"),
    Row("files of a profile, 0600", "connection:files_are_for_their_owner_only"),
    Row(
        "connection files of ipyparallel", "client:a_file_of_ipyparallel_gets_a_clear_error", "refused, with the reason"
    ),
    Row("`IPYTHONDIR`", "config:profile_folders_follow_ipython"),
    Row("`IPP_PROFILE_DIR`, `IPP_CLUSTER_ID`, `IPP_CONNECTION_INFO`, `IPP_CONTROLLER_IP`", note=NOT_YET),
    Row(
        "`IPP_ENABLE_CURVE`, `IPP_CURVE_*`",
        note="left out: between hosts CURVE is always on, and no secret is in the environment",
    ),
    Row("`iplogger`, Windows HPC, `load_request`, MongoDB", note="left out: hardly used, or broken"),
]

SCHEDULER = [
    Row("`leastload`", "core:tasks_go_to_idle_engines_and_then_wait_for_the_first_that_is_free"),
    Row(
        "`lru`, `twobin`, `weighted`, `plainrandom`",
        "policies_in_use:a_cluster_uses_the_policy_of_its_settings",
        "idle engines come first",
    ),
    Row("`pure`", note="left out: it has no dependencies, retries or targets"),
    Row("`hwm`", note="different: how much is handed ahead follows the time that tasks take"),
    Row("`after`", "core:a_task_starts_after_those_it_waits_for"),
    Row("`follow`", "core:a_task_follows_others_to_their_engine"),
    Row("dependencies on success, failure, all, any", "core:a_dependency_on_what_has_ended_already_is_decided_at_once"),
    Row("impossible dependencies are found", "core:a_failure_falls_through_a_long_chain"),
    Row("tasks of direct views can be depended on", "core:a_task_may_come_after_a_direct_one", "new"),
    Row("`retries`", "core:retries_go_to_engines_that_were_not_tried_and_then_to_any"),
    Row("`timeout`", "core:a_task_that_finds_no_free_engine_in_time_fails"),
    Row(
        "no engine qualifies",
        "core:a_task_that_is_refused_moves_on_without_using_a_retry_until_nobody_is_left",
        "fails; in ipyparallel it waits for ever",
    ),
    Row("a lost engine's tasks are tried again", "losses:a_task_of_a_killed_rank_is_retried_on_another"),
    Row("task database: operators", "matching:the_same_records_match_as_in_plain_python"),
    Row(
        "task database: survives a restart",
        "sessions:another_client_gets_a_large_value_that_a_killed_controller_had",
        'SQLite, always on; `store = "none"` switches it off',
    ),
    Row(
        "records: `header`, `content`, `buffers`, `result_*`, `execute_*`",
        note="left out: pickled values are got by `get_result`",
    ),
]

ENGINE = [
    Row("IPython namespace shared by all calls", "e2e:executed_code_and_files_share_the_namespace"),
    Row("magics and shell commands on engines", "shell:magics_and_commands_work"),
    Row("rich displays", "shell:displays_are_bundles"),
    Row("`publish_data`", "publishing:published_data_is_seen_while_the_function_runs_and_the_last_of_it_stays"),
    Row("`sys.exit` in a task", "runner:nothing_that_code_raises_ends_the_engine"),
    Row("SIGINT interrupts the code", "interrupting:sigint_interrupts_running_code_within_a_second"),
    Row("`bind_kernel`", note=NOT_YET),
    Row("`get_ipython().kernel.engine_id`", note=NOT_YET),
    Row("startup files and commands", note=NOT_YET),
    Row(
        "functions of `__main__` see the engine's names",
        "functions:a_function_sees_the_names_of_the_engine",
        "and bring those that it lacks",
    ),
    Row(
        "classes of `__main__`, their instances",
        "e2e:instances_of_main_classes_are_arguments_and_results",
        "need no push",
    ),
    Row("closures", "functions:globals_that_the_engine_lacks_travel"),
    Row("arrays are sent without copies", "pickling:large_buffers_are_not_copied_by_packing", "at any depth"),
    Row(
        "received arrays can be written",
        "pickling:only_a_read_only_array_arrives_read_only_whatever_its_size",
        "whatever their size",
    ),
]

DEFECTS = [
    Row(
        "`$gt` compares the wrong way; of several equalities only the last counts",
        "matching:greater_is_greater_and_every_equality_counts",
    ),
    Row("purge by targets compares wrong values", "questions:results_are_purged_and_nobody_finds_them_again"),
    Row("`result_status` loses ids", "questions:states_and_values_of_tasks"),
    Row("an invalid connection file is an AttributeError", "connection:half_a_file_is_recognised"),
    Row(
        "an exception of the input of `imap` is lost", "balanced:an_error_of_the_items_comes_after_the_values_before_it"
    ),
    Row("aborted tasks are values in a list", "results:other_failures_are_of_the_class_they_are_named_after"),
    Row("`BroadcastView.run` and its `label` fail", "views:a_broadcast_view_is_a_direct_view", "they work"),
    Row("a dependency as a dict is refused", "balanced:a_dependency_can_be_made_of_data", "accepted"),
    Row("`view.timeout = None` fails", "balanced:no_limit_of_time_may_also_be_none", "it means no limit"),
    Row(
        "deferred tasks are put back in reverse order",
        "core:an_old_task_for_one_engine_goes_before_younger_ones_for_any",
    ),
    Row("engines that died stay listed", "queries:engines_that_are_gone_are_not_in_the_queue_status"),
]

AREAS: dict[str, list[Row]] = {
    "Names": NAMES,
    "Connecting": CONNECT,
    "The client": CLIENT,
    "Views": VIEWS,
    "Results": RESULTS,
    "Errors": ERRORS,
    "Magics": MAGICS,
    "Clusters and commands": CLUSTER,
    "Scheduling and records": SCHEDULER,
    "Engines and what travels": ENGINE,
    "Defects that are none here": DEFECTS,
}
"""All rows, by area: sections 0.2, 1, 2, 3, 5, 7, 8, 9 and 16.1 of what users know."""

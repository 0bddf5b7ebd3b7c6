//! Programs in microVMs: what they are given, what they answer, and what happens when something dies.

mod about;
mod archives;
mod budget;
mod clones;
mod devices;
mod equivalence;
mod failures;
mod hostile;
mod idle;
mod jail;
mod kill;
mod lifecycle;
mod network;
mod requests;
mod scale;
mod storm;
mod streaming;
mod volumes;

use crate::trial;
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("crn::requests::path_and_query", requests::path_and_query),
        trial("crn::requests::json_and_form_bodies", requests::json_and_form_bodies),
        trial("crn::requests::the_whole_scope_arrives", requests::the_whole_scope_arrives),
        trial("crn::requests::methods", requests::methods),
        trial("crn::requests::headers_of_answers_are_kept", requests::headers_of_answers_are_kept),
        trial("crn::requests::hooks_run_before_the_first_request", requests::hooks),
        trial("crn::requests::the_environment_of_the_message", requests::environment),
        trial("crn::requests::clock_and_randomness", requests::clock_and_randomness),
        trial("crn::requests::by_host_name", requests::by_host_name),
        trial("crn::requests::a_static_binary", requests::static_binary),
        trial("crn::streaming::five_megabytes_up", streaming::upload),
        trial("crn::streaming::five_megabytes_down", streaming::download),
        trial("crn::streaming::server_sent_events_come_one_by_one", streaming::events),
        trial("crn::streaming::websocket_echo", streaming::websocket),
        trial("crn::failures::an_exception_is_a_500_with_its_traceback", failures::exception),
        trial("crn::failures::a_crash_is_a_502_and_the_next_call_works", failures::crash),
        trial("crn::failures::a_program_that_does_not_import", failures::broken_import),
        trial("crn::failures::a_startup_hook_that_fails", failures::broken_startup),
        trial("crn::failures::a_program_that_never_answers", failures::silent),
        trial("crn::failures::a_binary_that_ends_or_answers_garbage", failures::bad_binaries),
        trial("crn::archives::paths_that_leave_the_folder", archives::escaping),
        trial("crn::archives::a_bomb", archives::bomb),
        trial("crn::archives::garbage_of_each_kind", archives::garbage),
        trial("crn::archives::an_entry_point_that_is_not_there", archives::no_entry_point),
        trial("crn::lifecycle::a_hundred_calls_at_once_are_one_boot", lifecycle::one_boot),
        trial("crn::lifecycle::programs_boot_beside_each_other", lifecycle::beside_each_other),
        trial("crn::lifecycle::idle_programs_shut_down_and_come_back", lifecycle::idle),
        trial("crn::lifecycle::a_clean_stop_lets_calls_end", lifecycle::clean_stop),
        trial("crn::lifecycle::a_damaged_cache_heals", lifecycle::damaged_cache),
        trial("crn::clones::they_differ_in_all_that_is_drawn", clones::differ),
        trial("crn::clones::a_damaged_template_is_followed_by_the_next_way", clones::fall_back),
        trial("crn::clones::a_program_says_how_far_templates_go", clones::switched_off),
        trial("crn::budget::system_calls_of_a_cold_start", budget::system_calls),
        trial("crn::hostile::a_kernel_that_sprays_its_devices", hostile::kernel_against_devices),
        trial("crn::hostile::a_node_of_hostile_machines", hostile::kernel_against_node),
        trial("crn::hostile::a_program_that_floods_its_output_and_one_that_does_not_read", hostile::loud_and_deaf),
        trial("crn::scale::a_machine_for_each_call_where_the_program_asks_for_it", scale::one_call_each),
        trial("crn::scale::more_calls_get_more_machines", scale::by_calls),
        trial("crn::storm::more_programs_at_once_than_fit", storm::more_than_fit),
        trial("crn::equivalence::copies_made_at_any_instant_go_on_alike", equivalence::at_any_instant),
        trial("crn::idle::a_machine_that_nobody_calls_sleeps", idle::asleep),
        trial("crn::kill::a_monitor_takes_only_its_own_calls_with_it", kill::monitor),
        trial("crn::kill::the_node_leaves_nothing_behind", kill::node),
        trial("crn::volumes::an_ephemeral_one_is_fresh_in_each_machine", volumes::ephemeral),
        trial("crn::volumes::a_persistent_one_outlives_machines_and_nodes", volumes::persistent),
        trial("crn::volumes::what_is_full_is_said", volumes::full),
        trial("crn::volumes::what_was_synchronized_survives_kill_9", volumes::killed),
        trial("crn::devices::entropy_and_free_memory", devices::entropy_and_free_memory),
        trial("crn::network::machines_have_the_internet_and_nothing_else", network::internet),
        trial("crn::jail::a_running_monitor_is_confined", jail::confined),
        trial("crn::about::what_the_node_says_of_itself", about::about),
    ]
}

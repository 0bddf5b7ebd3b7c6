//! The core channel node alone.

mod bad_input;
mod chains;
mod clients;
mod durable;
mod fixtures;
mod ipfs;
mod letter;
mod object_store;
mod overload;
mod plugins;
mod reference;
mod sdk;
mod stranger;

use crate::trial;
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("ccn::durable::kill_9_under_load_loses_no_acknowledged_message", durable::kill_under_load),
        trial("ccn::durable::a_restart_changes_nothing", durable::restart),
        trial("ccn::fixtures::signed_fixtures_get_their_verdicts", fixtures::signed),
        trial("ccn::fixtures::recorded_messages_get_their_verdicts", fixtures::messages),
        trial("ccn::sdk::a_post_is_published_listed_and_read", sdk::post),
        trial("ccn::sdk::aggregates_merge", sdk::aggregate),
        trial("ccn::sdk::a_file_goes_up_and_comes_back", sdk::file),
        trial("ccn::sdk::credits_come_by_signed_posts_of_the_treasury_alone", sdk::credits),
        trial("ccn::sdk::messages_are_heard_as_they_come", sdk::websocket),
        trial("ccn::plugins::a_file_is_dropped_in_replaced_and_removed", plugins::drop_in),
        trial("ccn::plugins::one_that_fails_is_stopped_and_the_operator_acts", plugins::hostile),
        trial("ccn::plugins::a_version_with_another_state_gets_it_while_the_old_one_serves", plugins::another_state),
        trial("ccn::plugins::compiled_code_that_was_changed_is_not_believed", plugins::corrupted_code),
        trial("ccn::chains::tokens_are_followed_over_gaps_reorganisations_and_kill_9", chains::tokens),
        trial("ccn::chains::messages_are_confirmed_by_the_chain", chains::confirmations),
        trial("ccn::object_store::files_in_a_bucket_are_as_in_a_folder", object_store::alike),
        trial("ccn::object_store::nothing_is_lost_while_it_is_away", object_store::away),
        trial("ccn::object_store::what_is_wrong_is_said_at_the_start", object_store::refusals),
        trial("ccn::ipfs::what_the_ipfs_node_has_is_fetched_and_its_pins_stay", ipfs::fetched),
        trial("ccn::ipfs::what_messages_keep_is_pinned_until_it_is_collected", ipfs::pinned),
        trial("ccn::ipfs::pins_are_made_up_for_after_either_was_away_or_killed", ipfs::interrupted),
        trial("ccn::stranger::the_guide_makes_a_running_message_type", stranger::guide),
        trial("ccn::stranger::the_guide_makes_a_plugin_of_python", stranger::python),
        trial("ccn::reference::schemathesis_finds_no_violation", reference::conformance),
        trial("ccn::reference::the_page_works_in_a_browser", reference::page),
        trial("ccn::overload::memory_is_bounded_and_others_are_served", overload::bounds),
        trial("ccn::bad_input::bodies_that_are_no_message", bad_input::no_message),
        trial("ccn::bad_input::a_wrong_hash", bad_input::wrong_hash),
        trial("ccn::bad_input::a_wrong_signature_does_not_harm_the_good_copy", bad_input::wrong_signature),
        trial("ccn::bad_input::an_unknown_type", bad_input::unknown_type),
        trial("ccn::bad_input::too_long", bad_input::too_long),
        trial("ccn::bad_input::an_unknown_reference_waits_and_is_told", bad_input::unknown_reference),
        trial("ccn::bad_input::uploads_that_do_not_fit_their_message", bad_input::uploads),
        trial("ccn::bad_input::questions_about_nothing", bad_input::questions),
    ];
    trials.extend(clients::trials());
    trials
}

//! A user with the official SDK, from account to answer.

mod publish;

use crate::trial;
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("both::an_account_a_program_an_answer", publish::an_account_a_program_an_answer),
        trial("both::a_program_is_paid_for_and_refused_without_credits", publish::paid_or_refused),
        trial("both::an_update_of_the_code_is_another_program", publish::another_program),
        trial("both::a_rejected_or_unknown_program_is_not_found", publish::rejected_or_unknown),
    ]
}

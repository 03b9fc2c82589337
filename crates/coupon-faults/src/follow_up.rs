//! The client's reaction to an answer that is not final or did not arrive: it asks, and claims again, as `docs/API.md`
//! says.
//!
//! Invariant: an accepted claim is not repeated, so that a lost claim stays lost; the exception is a claim that may
//! have been settled as sold out before a restock, because no record of it is kept.

use std::sync::atomic::Ordering;
use std::time::Duration;

use coupon_core::ClaimKey;

use crate::campaigns::Role;
use crate::clients::{APIS, Clients};
use crate::journal::{Answer, Instance, Micros};

/// How long one request waits for an outcome.
const WAIT: Duration = Duration::from_secs(5);

/// The first and the longest pause before a request is repeated; the pause doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// An accepted claim that has been pending for this long, in a campaign that was restocked meanwhile, is made again.
const OUTDATED_AFTER: Micros = 15_000_000;

/// Stays with a claim until its outcome is final, it is refused, or the run gives up.
pub async fn until_final(clients: &Clients, mut instance: Instance, claim: ClaimKey, first: Answer) {
    let mut answer = first;
    let mut is_accepted = first == Answer::Accepted;
    let mut since = clients.journal.now();
    let mut pause = PAUSE_MIN;
    while !answer.is_final() && clients.journal.now() < clients.give_up.load(Ordering::Relaxed) {
        if is_accepted {
            answer = clients.ask(instance, claim, WAIT).await;
            if answer == Answer::Pending && is_outdated(clients, claim, since) {
                is_accepted = false;
            }
        } else {
            let is_known = answer == Answer::Pending;
            answer = if is_known {
                clients.claim(instance, claim).await
            } else {
                clients.ask(instance, claim, Duration::ZERO).await
            };
            is_accepted = answer == Answer::Accepted;
            since = clients.journal.now();
        }
        match answer {
            Answer::Refused(_) => return,
            Answer::Failed(_) | Answer::Silence => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                instance = another(instance);
            }
            _ => pause = PAUSE_MIN,
        }
    }
}

/// Another API, so that the answers of two instances get compared.
fn another(instance: Instance) -> Instance {
    let place = APIS.iter().position(|&api| api == instance).unwrap_or(0);
    APIS.get((place + 1) % APIS.len()).copied().unwrap_or(instance)
}

fn is_outdated(clients: &Clients, claim: ClaimKey, since: Micros) -> bool {
    clients.campaigns.role(claim.campaign_id.0) == Role::Restocked && clients.journal.now() > since + OUTDATED_AFTER
}

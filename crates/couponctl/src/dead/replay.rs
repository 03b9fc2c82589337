//! Moves claims from the dead letters back into the queue.
//!
//! Invariant: a letter is acknowledged after the broker has confirmed its claims in the queue. If the command ends in
//! between, they are in both, which is harmless: processing is idempotent.

use std::process::ExitCode;

use coupon_core::mysql::Mysql;
use coupon_core::rabbitmq::{message, publish_confirmed, within};
use coupon_core::{Installation, InstallationId, Result};

use super::{Chosen, Letter, Letters};
use crate::output;
use crate::servers::Servers;

pub async fn run(mysql: &Mysql, servers: &Servers, chosen: &Chosen, json: bool) -> anyhow::Result<ExitCode> {
    let ours = Installation::of(mysql, &servers.namespace.namespace).await?.id;
    let mut letters = Letters::open(servers).await?;
    let (mut messages, mut claims, mut kept, mut found) = (0, 0, 0, Vec::new());
    while let Some(letter) = letters.next().await? {
        if !chosen.has(&letter) {
            continue;
        }
        found.push(letter.id);
        if !is_ours(&letter, ours) {
            kept += 1;
            continue;
        }
        let replayed = replay(&letters, &letter, ours);
        within(servers.amqp.amqp_deadline, "putting claims back into the queue", replayed).await?;
        letters.done(&letter).await?;
        messages += 1;
        claims += letter.claims().len();
    }
    letters.close().await?;
    chosen.were_found(&found)?;
    let stay = match kept {
        0 => String::new(),
        kept => format!("; {kept} messages without claims of this installation stay"),
    };
    let figures = serde_json::json!({ "messages": messages, "claims": claims, "kept": kept });
    output::done(&format!("{claims} claims of {messages} dead letters are back in the queue{stay}"), &figures, json)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the letter holds claims that a consumer of this installation takes.
fn is_ours(letter: &Letter, ours: InstallationId) -> bool {
    letter.message.as_ref().is_ok_and(|message| message.installation.is_none_or(|theirs| theirs == ours))
}

async fn replay(letters: &Letters, letter: &Letter, ours: InstallationId) -> Result<()> {
    let properties = message::properties(ours, std::iter::empty());
    let body = message::encode(letter.claims())?;
    publish_confirmed(&letters.channel, letters.claims(), "the queue", properties, &body).await
}

//! `couponctl dead`: shows messages that could not be handled and why, and replays or deletes them.

mod letters;
mod replay;
mod show;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use coupon_core::mysql::schema;

pub use self::letters::Letters;

use self::letters::{Letter, LetterId};
use crate::output;
use crate::servers::Servers;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List dead letters, oldest first.
    #[command(after_help = "Example:\n  couponctl dead list --limit 20")]
    List(List),
    /// Show everything in a dead letter.
    #[command(after_help = "Example:\n  couponctl dead show 5d41402abc4b")]
    Show(Show),
    /// Put claims back into the queue, once the cause is fixed. Messages without claims of this installation stay.
    #[command(after_help = "Example:\n  couponctl dead replay\n  couponctl dead replay 5d41402abc4b")]
    Replay(Chosen),
    /// Delete dead letters: the claims in them get no outcome.
    #[command(after_help = "Example:\n  couponctl dead purge --yes 5d41402abc4b")]
    Purge(Purge),
}

#[derive(Args, Debug)]
pub struct List {
    /// How many to list.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
}

#[derive(Args, Debug)]
pub struct Show {
    /// Which one, as `list` prints it.
    id: LetterId,
}

/// The dead letters that a command applies to.
#[derive(Args, Debug)]
pub struct Chosen {
    /// Only these, as `list` prints them; all by default.
    #[arg(value_name = "ID")]
    ids: Vec<LetterId>,
}

impl Chosen {
    fn has(&self, letter: &Letter) -> bool {
        self.ids.is_empty() || self.ids.contains(&letter.id)
    }

    /// Fails if some of the chosen letters were not found.
    fn were_found(&self, found: &[LetterId]) -> anyhow::Result<()> {
        let missing = self.ids.iter().filter(|id| !found.contains(id)).map(ToString::to_string);
        let missing: Vec<String> = missing.collect();
        anyhow::ensure!(
            missing.is_empty(),
            "{} dead letters were handled; not found: {}",
            found.len(),
            missing.join(" ")
        );
        Ok(())
    }
}

#[derive(Args, Debug)]
pub struct Purge {
    #[command(flatten)]
    chosen: Chosen,
    /// Really delete them.
    #[arg(long)]
    yes: bool,
}

impl Command {
    /// Fails unless `--yes` confirms a deletion.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Purge(Purge { yes: false, .. }) => Err(String::from(
                "this deletes dead letters, and the claims in them get no outcome; add --yes to do it",
            )),
            _ => Ok(()),
        }
    }
}

pub async fn run(servers: &Servers, command: &Command, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(List { limit }) => list(servers, *limit, json).await?,
        Command::Show(Show { id }) => show(servers, *id, json).await?,
        Command::Replay(chosen) => {
            return schema::work_on(&servers.mysql, async |mysql| replay::run(mysql, servers, chosen, json).await)
                .await;
        }
        Command::Purge(Purge { chosen, .. }) => purge(servers, chosen, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(servers: &Servers, limit: u32, json: bool) -> anyhow::Result<()> {
    let mut letters = Letters::open(servers).await?;
    let mut listed = Vec::new();
    while listed.len() < usize::try_from(limit)?
        && let Some(letter) = letters.next().await?
    {
        listed.push(show::Row::of(&letter));
    }
    let more = letters.left();
    letters.close().await?;
    Ok(show::list(&listed, more, json)?)
}

async fn show(servers: &Servers, id: LetterId, json: bool) -> anyhow::Result<()> {
    let (mut letters, mut found) = (Letters::open(servers).await?, Vec::new());
    while let Some(letter) = letters.next().await? {
        if letter.id == id {
            found.push(letter);
        }
    }
    letters.close().await?;
    anyhow::ensure!(!found.is_empty(), "there is no dead letter {id}; `couponctl dead list` lists them");
    // Messages with the same body may differ in all else.
    Ok(found.iter().try_for_each(|letter| show::one(letter, json))?)
}

async fn purge(servers: &Servers, chosen: &Chosen, json: bool) -> anyhow::Result<()> {
    let mut letters = Letters::open(servers).await?;
    let (mut messages, mut claims, mut found) = (0, 0, Vec::new());
    while let Some(letter) = letters.next().await? {
        if chosen.has(&letter) {
            letters.done(&letter).await?;
            messages += 1;
            claims += letter.claims().len();
            found.push(letter.id);
        }
    }
    letters.close().await?;
    chosen.were_found(&found)?;
    let figures = serde_json::json!({ "messages": messages, "claims": claims });
    Ok(output::done(&format!("deleted {messages} dead letters with {claims} claims"), &figures, json)?)
}

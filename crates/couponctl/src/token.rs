//! `couponctl token`: creates keys and tokens, to try out a service that requires them. Needs no server.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use coupon_core::settings::{self, Refusal};
use coupon_core::tokens::KeyPair;
use coupon_core::{AccountId, CampaignId};

use crate::output;

/// The file with the private key, which nobody else may read.
const PRIVATE: &str = "private.pem";

/// The file with the public key, for `--auth-keys`.
const PUBLIC: &str = "jwks.json";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a pair of keys: private.pem, to sign tokens with, and jwks.json, for --auth-keys of an API.
    #[command(after_help = "Example:\n  couponctl token keys --out keys")]
    Keys(Keys),
    /// Print a token that names an account.
    #[command(
        after_help = "Example:\n  couponctl token issue --key keys/private.pem --account 42 --issuer https://issuer.example --audience coupons"
    )]
    Issue(Issue),
}

#[derive(Args, Debug)]
pub struct Keys {
    /// The folder to write them to. It is created if needed, and no file in it is replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Args, Debug)]
pub struct Issue {
    /// The private key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The account that the token names.
    #[arg(long, value_name = "N")]
    account: AccountId,
    /// A campaign that the account may claim from, in the claim `campaigns`, for --auth-eligibility-claim of the API; may be
    /// given several times. Without it, the token has no such claim.
    #[arg(long = "campaign", value_name = "N")]
    campaigns: Vec<CampaignId>,
    /// The token's iss, as in --auth-issuer of the API.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    issuer: String,
    /// The token's aud, as in --auth-audience of the API.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    audience: String,
    /// How long it is valid, from now.
    #[arg(long, value_name = "TIME", value_parser = settings::duration, default_value = "10min")]
    valid: Duration,
}

pub fn run(command: &Command, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Command::Keys(keys) => {
            let pair = KeyPair::generate()?;
            write_keys(&keys.out, &pair)?;
            let [private_key, public_keys] = [PRIVATE, PUBLIC].map(|name| keys.out.join(name));
            let files = serde_json::json!({ "private_key": private_key, "public_keys": public_keys });
            output::done(&format!("{PRIVATE} and {PUBLIC} are in {}", keys.out.display()), &files, json)?;
        }
        Command::Issue(issue) => {
            let Issue { key, account, campaigns, issuer, audience, valid } = issue;
            output::token(&key_pair(key).token(*account, campaigns, issuer, audience, *valid)?, json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the keys of `--key`. Ends the program if they are wrong, as for any wrong setting.
fn key_pair(file: &Path) -> KeyPair {
    let pair = settings::small_file(file)
        .and_then(|text| KeyPair::from_pem(&text).map_err(|error| error.to_string()))
        .map_err(|reason| format!("--key = '{}': {reason}; `couponctl token keys` makes one", file.display()));
    pair.unwrap_or_else(|line| settings::end(&Refusal::Wrong(vec![line])))
}

fn write_keys(folder: &Path, pair: &KeyPair) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("--out {}", folder.display()))?;
    for name in [PRIVATE, PUBLIC] {
        // Writes neither if either exists, because a mix of old and new would not be a pair.
        let is_there = fs::symlink_metadata(folder.join(name)).is_ok();
        anyhow::ensure!(!is_there, "--out {} already has a {name}, and keys are never replaced", folder.display());
    }
    let (private, public) = (folder.join(PRIVATE), folder.join(PUBLIC));
    write_new(&private, 0o600, &pair.to_pem())?;
    // A private key without its public key would be useless, and would block the next attempt.
    write_new(&public, 0o644, &format!("{:#}\n", pair.jwks())).inspect_err(|_| drop(fs::remove_file(&private)))
}

/// Never replaces a file: a key replaced by mistake would be lost, and every token that it signed with it.
fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    // On a full disk, the file would exist but be incomplete.
    let write = |mut file: File| file.write_all(text.as_bytes()).inspect_err(|_| drop(fs::remove_file(path)));
    file.and_then(write).with_context(|| path.display().to_string())
}

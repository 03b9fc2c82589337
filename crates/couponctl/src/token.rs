//! `couponctl token`: keys and tokens of one's own, to try out a service that asks for them. No server is asked.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use coupon_core::tokens::KeyPair;
use coupon_core::{AccountId, settings};

use crate::output;

/// The file with the private key, which nobody else may read.
const PRIVATE: &str = "private.pem";

/// The file with the public key, for `--auth-keys`.
const PUBLIC: &str = "jwks.json";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a pair of keys: private.pem, to make tokens with, and jwks.json, for --auth-keys of an API.
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
    /// The folder to write them to; it is made if needed, and no file of it is replaced.
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
    /// The token's iss, as in --auth-issuer of the API.
    #[arg(long, value_name = "TEXT")]
    issuer: String,
    /// The token's aud, as in --auth-audience of the API.
    #[arg(long, value_name = "TEXT")]
    audience: String,
    /// How long it is valid, from now on.
    #[arg(long, value_name = "TIME", value_parser = settings::duration, default_value = "10min")]
    valid: Duration,
}

pub fn run(command: &Command, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Command::Keys(keys) => {
            let pair = KeyPair::generate()?;
            write_keys(&keys.out, &pair)?;
            output::done(&format!("{PRIVATE} and {PUBLIC} are in {}", keys.out.display()), json)?;
        }
        Command::Issue(issue) => {
            let text = fs::read_to_string(&issue.key).with_context(|| format!("--key {}", issue.key.display()))?;
            let pair = KeyPair::from_pem(&text).with_context(|| format!("--key {}", issue.key.display()))?;
            let token = pair.token(issue.account, &issue.issuer, &issue.audience, issue.valid)?;
            output::token(&token, json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_keys(folder: &Path, pair: &KeyPair) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("--out {}", folder.display()))?;
    write_new(&folder.join(PRIVATE), 0o600, &pair.to_pem())?;
    write_new(&folder.join(PUBLIC), 0o644, &format!("{:#}\n", pair.jwks()))
}

/// A key that is replaced by mistake is gone, and with it every token that it has signed.
fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| path.display().to_string())
}

//! Prints dead letters. Their sender may have written anything into them.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use comfy_table::Cell;
use coupon_core::domain::JSON_NUMBER_MAX;
use coupon_core::terminal::{print, print_json, printable, shortened};
use coupon_core::{CampaignId, Claim};
use lapin::protocol::basic::AMQPProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde::Serialize;
use serde_json::{Value, json};

use super::letters::{Letter, LetterId};
use crate::output::{Printed, number, table};

/// The most characters shown of a body that holds no claims; `--json` has all of its bytes.
const BODY_MAX: usize = 2_000;

/// The most campaigns named in a row.
const CAMPAIGNS_MAX: usize = 5;

/// A row of the list.
#[derive(Serialize)]
pub struct Row {
    id: LetterId,
    reason: String,
    claims: usize,
    campaigns: Vec<CampaignId>,
}

impl Row {
    pub fn of(letter: &Letter) -> Self {
        Self {
            id: letter.id,
            reason: letter.reason.clone(),
            claims: letter.claims().len(),
            campaigns: letter.campaigns().into_iter().collect(),
        }
    }
}

/// Prints the list, and how many more letters there are.
pub fn list(rows: &[Row], more: u32, json: bool) -> Printed {
    if json {
        return print_json(&json!({ "dead_letters": rows, "more": more }));
    }
    let mut table = table(["id", "claims", "campaigns", "reason"]);
    for row in rows {
        table.add_row([
            Cell::new(row.id),
            number(row.claims as u64),
            Cell::new(campaigns(&row.campaigns)),
            Cell::new(printable(&row.reason)),
        ]);
    }
    if !rows.is_empty() {
        print(&table)?;
    }
    print(&format!("{} dead letters{}", rows.len(), if more > 0 { format!(", {more} more") } else { String::new() }))
}

fn campaigns(campaigns: &[CampaignId]) -> String {
    let named: Vec<String> = campaigns.iter().take(CAMPAIGNS_MAX).map(ToString::to_string).collect();
    let more = if campaigns.len() > CAMPAIGNS_MAX { " …" } else { "" };
    format!("{}{more}", named.join(" "))
}

/// Prints everything in a letter.
pub fn one(letter: &Letter, json: bool) -> Printed {
    let Letter { id, reason, message, body, properties, .. } = letter;
    let text = message.as_ref().err().map(|_| shortened(&String::from_utf8_lossy(body), BODY_MAX));
    if json {
        return print_json(&json!({
            "id": id,
            "reason": reason,
            "type": properties.kind(),
            "app_id": properties.app_id(),
            "content_type": properties.content_type(),
            "headers": headers(properties),
            "claims": letter.claims().iter().map(claim).collect::<Vec<_>>(),
            "body": text,
            "body_base64": BASE64_STANDARD.encode(body),
        }));
    }
    print(&format!("{id}: {}", printable(reason)))?;
    let named =
        [("type", properties.kind()), ("app_id", properties.app_id()), ("content_type", properties.content_type())];
    for (name, value) in named.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        print(&format!("  {name}: {}", printable(value.as_str())))?;
    }
    for (name, value) in headers(properties) {
        print(&format!("  {}: {}", printable(name), printable(&value.to_string())))?;
    }
    if let Some(text) = text {
        print(&printable(&text))?;
        if text.as_bytes() != body.as_slice() {
            print(&format!("the body has {} bytes: --json shows them all", body.len()))?;
        }
        return Ok(());
    }
    let mut table = table(["campaign", "account", "accepted at, ms since 1970"]);
    for claim in letter.claims() {
        table.add_row([number(claim.campaign_id.0), number(claim.account_id.0), number(claim.accepted_at_ms)]);
    }
    print(&table)
}

/// The headers: text, numbers and booleans as they are, everything else with its type, as in `Timestamp(5)`.
fn headers(properties: &AMQPProperties) -> BTreeMap<&str, Value> {
    let headers = properties.headers().iter().flat_map(FieldTable::inner);
    let shown = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => json!(text.to_string()),
        AMQPValue::Boolean(is_true) => json!(is_true),
        AMQPValue::LongInt(number) => json!(number),
        AMQPValue::LongLongInt(number) => json!(number),
        other => json!(format!("{other:?}")),
    };
    headers.map(|(name, value)| (name.as_str(), shown(value))).collect()
}

/// A claim as JSON. Account numbers that a JSON reader might round are text, as in the API.
fn claim(claim: &Claim) -> Value {
    let Claim { campaign_id, account_id, accepted_at_ms } = claim;
    let account = if account_id.0 > JSON_NUMBER_MAX { json!(account_id.to_string()) } else { json!(account_id) };
    json!({ "campaign_id": campaign_id, "account_id": account, "accepted_at_ms": accepted_at_ms })
}

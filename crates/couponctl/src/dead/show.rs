//! How dead letters are printed. Whoever sent them may have written anything into them.

use comfy_table::Cell;
use coupon_core::terminal::{print, print_json, printable, shortened};
use coupon_core::{CampaignId, Claim};
use serde::Serialize;
use serde_json::json;

use super::letters::{Letter, LetterId};
use crate::output::{Printed, number, table};

/// Characters of a body that holds no claims.
const BODY_MAX: usize = 2_000;

/// Campaigns named in a row.
const CAMPAIGNS_MAX: usize = 5;

/// A line of the list.
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

/// The list, and how many more there are.
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

/// All that is in one.
pub fn one(letter: &Letter, json: bool) -> Printed {
    let Letter { id, reason, message, body, .. } = letter;
    let claims: &[Claim] = letter.claims();
    let body = message.as_ref().err().map(|_| shortened(&String::from_utf8_lossy(body), BODY_MAX));
    if json {
        return print_json(&json!({ "id": id, "reason": reason, "claims": claims, "body": body }));
    }
    print(&format!("{id}: {}", printable(reason)))?;
    if let Some(body) = body {
        return print(&printable(&body));
    }
    let mut table = table(["campaign", "account", "accepted at, ms since 1970"]);
    for claim in claims {
        table.add_row([number(claim.campaign_id.0), number(claim.account_id.0), number(claim.accepted_at_ms)]);
    }
    print(&table)
}

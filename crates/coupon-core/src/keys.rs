//! Names in Redis, in one place. The campaign is the hash tag, so that a Redis Cluster keeps each campaign in one slot
//! and a script or pipeline of one campaign never crosses slots.

use crate::domain::{CampaignId, ClaimKey};
use crate::settings::Namespace;

/// The list of coupon ids that wait to be reserved, 16 bytes each.
#[must_use]
pub fn free_coupons(namespace: &Namespace, campaign: CampaignId) -> String {
    format!("{namespace}:{{{campaign}}}:free")
}

/// The last id that was put into that list: the next refill goes on behind it, so that ids in flight are not offered again.
#[must_use]
pub fn refilled_to(namespace: &Namespace, campaign: CampaignId) -> String {
    format!("{namespace}:{{{campaign}}}:refilled-to")
}

/// The lock on refilling that list.
#[must_use]
pub fn refill_lock(namespace: &Namespace, campaign: CampaignId) -> String {
    format!("{namespace}:{{{campaign}}}:refill-lock")
}

/// A claim's outcome.
#[must_use]
pub fn outcome(namespace: &Namespace, claim: ClaimKey) -> String {
    format!("{namespace}:{{{}}}:outcome:{}", claim.campaign_id, claim.account_id)
}

/// What a service sets to see whether it may.
#[must_use]
pub fn look(namespace: &Namespace) -> String {
    format!("{namespace}:look")
}

/// Matches every key of an installation, for SCAN. A [`Namespace`] holds no character that is special in a pattern.
#[must_use]
pub fn all(namespace: &Namespace) -> String {
    format!("{namespace}:*")
}

/// Matches the outcomes of one campaign, or of all, for SCAN.
#[must_use]
pub fn outcomes(namespace: &Namespace, campaign: Option<CampaignId>) -> String {
    match campaign {
        Some(campaign) => format!("{namespace}:{{{campaign}}}:outcome:*"),
        None => format!("{namespace}:*:outcome:*"),
    }
}

/// The claim that an outcome's key stands for.
#[must_use]
pub fn claim_of_outcome(key: &str) -> Option<ClaimKey> {
    let (rest, account) = key.rsplit_once(":outcome:")?;
    let (_, campaign) = rest.rsplit_once(":{")?;
    Some(ClaimKey { campaign_id: campaign.strip_suffix('}')?.parse().ok()?, account_id: account.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::AccountId;

    #[test]
    fn an_outcomes_key_tells_its_claim() {
        let namespace: Namespace = "shop-1".parse().unwrap();
        let claim = ClaimKey { campaign_id: CampaignId(7), account_id: AccountId(42) };

        assert_eq!(outcome(&namespace, claim), "shop-1:{7}:outcome:42");
        assert_eq!(claim_of_outcome(&outcome(&namespace, claim)), Some(claim));
        assert_eq!(claim_of_outcome("shop-1:{7}:free"), None);
    }
}

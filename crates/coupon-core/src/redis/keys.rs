//! The names of all keys in Redis. They begin with the installation; the campaign is the hash tag, so that a Redis
//! Cluster keeps each campaign in one slot and a script or pipeline of one campaign never crosses slots.

use crate::domain::{CampaignId, ClaimKey};
use crate::installation::Installation;

/// The list of coupon ids that wait to be reserved, 16 bytes each.
#[must_use]
pub fn free_coupons(installation: &Installation, campaign: CampaignId) -> String {
    format!("{installation}:{{{campaign}}}:free")
}

/// The last id that was put into that list: the next refill goes on after it, so that ids in flight are not offered
/// again.
#[must_use]
pub fn refilled_to(installation: &Installation, campaign: CampaignId) -> String {
    format!("{installation}:{{{campaign}}}:refilled-to")
}

/// The lock on refilling that list.
#[must_use]
pub fn refill_lock(installation: &Installation, campaign: CampaignId) -> String {
    format!("{installation}:{{{campaign}}}:refill-lock")
}

/// A claim's outcome.
#[must_use]
pub fn outcome(installation: &Installation, claim: ClaimKey) -> String {
    format!("{installation}:{{{}}}:outcome:{}", claim.campaign_id, claim.account_id)
}

/// The key that a service sets to see whether it may write.
#[must_use]
pub fn check(installation: &Installation) -> String {
    format!("{installation}:look")
}

/// A pattern that matches every key of an installation, for SCAN. Its name holds no character that is special in a
/// pattern.
#[must_use]
pub fn all(installation: &Installation) -> String {
    format!("{installation}:*")
}

/// A pattern that matches the outcomes of one campaign, or of all, for SCAN.
#[must_use]
pub fn outcomes(installation: &Installation, campaign: Option<CampaignId>) -> String {
    match campaign {
        Some(campaign) => format!("{installation}:{{{campaign}}}:outcome:*"),
        None => format!("{installation}:*:outcome:*"),
    }
}

/// The claim that the key of an outcome belongs to.
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
        let id = "018f2f6e-4c3a-4b60-9d0c-5d1f6a7b8c9d";
        let installation = Installation { namespace: "shop-1".parse().unwrap(), id: id.parse().unwrap() };
        let claim = ClaimKey { campaign_id: CampaignId(7), account_id: AccountId(42) };

        assert_eq!(outcome(&installation, claim), format!("shop-1:{id}:{{7}}:outcome:42"));
        assert_eq!(claim_of_outcome(&outcome(&installation, claim)), Some(claim));
        assert_eq!(claim_of_outcome(&free_coupons(&installation, CampaignId(7))), None);
    }
}

//! The campaigns from which a token lets its account claim: a list that the issuer has signed, so that a claim need not
//! wait for another service.
//!
//! Invariant: where the list is required, a token without one lets nobody claim.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::api::extract;
use crate::domain::CampaignId;

/// The campaigns that a caller may claim from. Cheap to clone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Eligibility {
    /// All of them.
    Any,
    /// Only these, and no more of them than fit into a token.
    Of(Arc<[CampaignId]>),
}

impl Eligibility {
    /// Reads the list from the token's claim of this name; without a name, every campaign is allowed. `None` if the
    /// claim is there and is anything but a list of campaigns.
    pub(super) fn read(claim: Option<&str>, claims: &Map<String, Value>) -> Option<Self> {
        let Some(claim) = claim else { return Some(Self::Any) };
        match claims.get(claim) {
            None => Some(Self::Of(Arc::default())),
            Some(Value::Array(campaigns)) => {
                campaigns.iter().map(extract::campaign).collect::<Option<_>>().map(Self::Of)
            }
            Some(_) => None,
        }
    }

    pub(super) fn holds(&self, campaign: CampaignId) -> bool {
        match self {
            Self::Any => true,
            Self::Of(campaigns) => campaigns.contains(&campaign),
        }
    }

    /// The bytes that the list takes in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Any => 0,
            Self::Of(campaigns) => size_of_val(&**campaigns),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(token: &Value) -> Option<Eligibility> {
        Eligibility::read(Some("campaigns"), token.as_object().unwrap())
    }

    #[test]
    fn a_list_names_each_campaign_by_its_number() {
        let listed = read(&json!({ "campaigns": [1, "7", 9_007_199_254_740_991_u64] })).unwrap();

        assert!([1, 7, 9_007_199_254_740_991].map(CampaignId).into_iter().all(|campaign| listed.holds(campaign)));
        assert!(!listed.holds(CampaignId(2)));
        assert_eq!(listed.bytes(), 24);
    }

    #[test]
    fn a_token_without_the_list_lets_nobody_claim() {
        for token in [json!({}), json!({ "campaigns": [] })] {
            assert!(!read(&token).unwrap().holds(CampaignId(1)), "{token}");
        }
        assert!(Eligibility::read(None, json!({}).as_object().unwrap()).unwrap().holds(CampaignId(1)));
    }

    #[test]
    fn what_is_no_list_of_campaigns_is_not_read() {
        for campaigns in [
            json!(1),
            json!("1"),
            json!(null),
            json!({ "1": true }),
            json!([0]),
            json!(["01"]),
            json!([1.5]),
            json!([-1]),
            json!([[1]]),
            json!([1, null]),
            json!([9_007_199_254_740_992_u64]),
        ] {
            assert_eq!(read(&json!({ "campaigns": campaigns })), None, "{campaigns}");
        }
    }
}

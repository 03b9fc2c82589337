//! Outcomes on their way from queue-consumer to the instance of producer-api that published the claims: one message of
//! Redis's publish/subscribe for each batch and instance.
//!
//! Invariant: a push is a hint. It is sent at most once and may be lost; the records in [`super::outcomes`] and MySQL
//! remain the truth, and they are read at intervals for everyone who waits.

use uuid::Uuid;

use crate::domain::{AccountId, CampaignId, ClaimKey, CouponId, InstanceId, Outcome};
use crate::installation::Installation;

/// Bytes of an outcome: campaign, account, coupon.
const OUTCOME_BYTES: usize = 8 + 8 + 16;

/// Pushed in place of a coupon.
const SOLD_OUT: Uuid = Uuid::nil();

/// The channel on which an instance receives the outcomes of its claims.
#[must_use]
pub fn channel(installation: &Installation, instance: InstanceId) -> String {
    format!("{installation}:outcomes:{instance}")
}

/// The message with these outcomes.
#[must_use]
pub fn encode(outcomes: &[(ClaimKey, Outcome)]) -> Vec<u8> {
    let mut message = Vec::with_capacity(outcomes.len() * OUTCOME_BYTES);
    for (claim, outcome) in outcomes {
        let coupon = match outcome {
            Outcome::Issued { coupon_id } => coupon_id.0,
            Outcome::SoldOut => SOLD_OUT,
            Outcome::Pending => continue,
        };
        message.extend(claim.campaign_id.0.to_be_bytes());
        message.extend(claim.account_id.0.to_be_bytes());
        message.extend(coupon.as_bytes());
    }
    message
}

/// The outcomes in a message; none if it is not one that this version writes.
#[must_use]
pub fn decode(message: &[u8]) -> Vec<(ClaimKey, Outcome)> {
    let (outcomes, rest) = message.as_chunks::<OUTCOME_BYTES>();
    if !rest.is_empty() {
        return Vec::new();
    }
    outcomes.iter().map(decode_one).collect()
}

fn decode_one(bytes: &[u8; OUTCOME_BYTES]) -> (ClaimKey, Outcome) {
    // The most significant byte comes first: campaign and account, then the coupon.
    let (numbers, coupon) = bytes.split_at(16);
    let numbers = numbers.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    let (campaign, account) = Uuid::from_u128(numbers).as_u64_pair();
    let claim = ClaimKey { campaign_id: CampaignId(campaign), account_id: AccountId(account) };
    match Uuid::from_slice(coupon).unwrap_or(SOLD_OUT) {
        SOLD_OUT => (claim, Outcome::SoldOut),
        coupon => (claim, Outcome::Issued { coupon_id: CouponId(coupon) }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_outcomes_survive_their_message(sent: Vec<(u64, u64, Option<u128>)>) {
            let outcome = |coupon: Option<u128>| match coupon {
                Some(id @ 1..) => Outcome::Issued { coupon_id: CouponId(Uuid::from_u128(id)) },
                _ => Outcome::SoldOut,
            };
            let claim = |campaign, account| ClaimKey { campaign_id: CampaignId(campaign), account_id: AccountId(account) };
            let outcomes: Vec<_> =
                sent.iter().map(|(campaign, account, coupon)| (claim(*campaign, *account), outcome(*coupon))).collect();

            prop_assert_eq!(decode(&encode(&outcomes)), outcomes);
        }

        #[test]
        fn any_bytes_are_read(message: Vec<u8>) {
            let outcomes = decode(&message).len() * OUTCOME_BYTES;

            prop_assert_eq!(outcomes, if message.len() % OUTCOME_BYTES == 0 { message.len() } else { 0 });
        }
    }

    const CLAIM: ClaimKey = ClaimKey { campaign_id: CampaignId(1), account_id: AccountId(0x0203) };

    #[test]
    fn outcomes_survive_their_message() {
        let issued = Outcome::Issued { coupon_id: CouponId(Uuid::from_u128(0x0a0b)) };
        let other = ClaimKey { campaign_id: CampaignId::MAX, account_id: AccountId::MAX };

        let message = encode(&[(CLAIM, issued), (CLAIM, Outcome::Pending), (other, Outcome::SoldOut)]);

        assert_eq!(
            message[..32],
            [[0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 2, 3], [0; 8], [0, 0, 0, 0, 0, 0, 10, 11]].concat()
        );
        assert_eq!(decode(&message), [(CLAIM, issued), (other, Outcome::SoldOut)]);
    }

    #[test]
    fn what_this_version_does_not_write_holds_no_outcome() {
        assert_eq!(decode(b""), []);
        assert_eq!(decode(b"garbage"), []);
        assert_eq!(decode(&[7; 33]), []);
    }
}

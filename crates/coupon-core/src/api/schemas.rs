//! How the `OpenAPI` document describes the terms of the domain: each by its name, with the range that `extract.rs`
//! accepts.

use std::borrow::Cow;

use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{Discriminator, KnownFormat, Ref, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use super::extract::ClaimBody;
use crate::domain::{AccountId, CampaignId, CouponId, JSON_NUMBER_MAX, Outcome};

/// A regular expression for the numbers from 1 to [`AccountId::MAX`], in the syntax that every language has.
const ACCOUNT_DIGITS: &str = concat!(
    "^(",
    "[1-9][0-9]{0,17}|",
    "[1-8][0-9]{18}|",
    "9[0-1][0-9]{17}|",
    "92[0-1][0-9]{16}|",
    "922[0-2][0-9]{15}|",
    "9223[0-2][0-9]{14}|",
    "92233[0-6][0-9]{13}|",
    "922337[0-1][0-9]{12}|",
    "92233720[0-2][0-9]{10}|",
    "922337203[0-5][0-9]{9}|",
    "9223372036[0-7][0-9]{8}|",
    "92233720368[0-4][0-9]{7}|",
    "922337203685[0-3][0-9]{6}|",
    "9223372036854[0-6][0-9]{5}|",
    "92233720368547[0-6][0-9]{4}|",
    "922337203685477[0-4][0-9]{3}|",
    "9223372036854775[0-7][0-9]{2}|",
    "922337203685477580[0-6]|",
    "9223372036854775807",
    ")$"
);

fn number(description: &str, max: u64) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .description(Some(description))
        .minimum(Some(1))
        .maximum(Some(max))
}

impl PartialSchema for CampaignId {
    fn schema() -> RefOr<Schema> {
        number("A campaign's number.", Self::MAX.0).examples([1]).into()
    }
}
impl ToSchema for CampaignId {}

impl PartialSchema for AccountId {
    fn schema() -> RefOr<Schema> {
        number("An account's number.", Self::MAX.0).examples([42]).into()
    }
}
impl ToSchema for AccountId {}

impl PartialSchema for ClaimBody {
    fn schema() -> RefOr<Schema> {
        let as_number = number("As a number; no JSON parser rounds it up to this size.", JSON_NUMBER_MAX);
        let as_digits = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("As a string, which takes every number."))
            .pattern(Some(ACCOUNT_DIGITS));
        let account = OneOfBuilder::new()
            .description(Some("The account that claims."))
            .item(as_number)
            .item(as_digits)
            .examples([42]);
        ObjectBuilder::new()
            .description(Some("What an account sends to claim a coupon."))
            .property("account_id", account)
            .required("account_id")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .into()
    }
}
impl ToSchema for ClaimBody {}

impl PartialSchema for CouponId {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
            .description(Some("A coupon's code."))
            .examples(["00765f0a-c635-49b6-a054-582bfb8c0180"])
            .into()
    }
}
impl ToSchema for CouponId {}

/// One of the shapes of an outcome: its `status` says which.
fn shape(status: &str, description: &str) -> ObjectBuilder {
    let status = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([status]));
    ObjectBuilder::new().description(Some(description)).property("status", status).required("status")
}

/// The account holds this coupon.
pub struct Issued;

impl PartialSchema for Issued {
    fn schema() -> RefOr<Schema> {
        shape("issued", "The account holds this coupon.")
            .property("coupon_id", CouponId::schema())
            .required("coupon_id")
            .into()
    }
}
impl ToSchema for Issued {}

/// No coupon was left.
pub struct SoldOut;

impl PartialSchema for SoldOut {
    fn schema() -> RefOr<Schema> {
        shape("sold_out", "No coupon was left.").into()
    }
}
impl ToSchema for SoldOut {}

/// Not decided yet, or never claimed.
pub struct Pending;

impl PartialSchema for Pending {
    fn schema() -> RefOr<Schema> {
        shape("pending", "Not decided yet, or never claimed.").into()
    }
}
impl ToSchema for Pending {}

impl PartialSchema for Outcome {
    fn schema() -> RefOr<Schema> {
        let names = [("issued", Issued::name()), ("sold_out", SoldOut::name()), ("pending", Pending::name())];
        let place = |name: &str| format!("#/components/schemas/{name}");
        let outcomes = OneOfBuilder::new().description(Some("What became of a claim: one of three shapes."));
        let outcomes = names.iter().fold(outcomes, |outcomes, (_, name)| outcomes.item(Ref::from_schema_name(&**name)));
        let mapping = names.iter().map(|(status, name)| (*status, place(name)));
        outcomes.discriminator(Some(Discriminator::with_mapping("status", mapping))).into()
    }
}

impl ToSchema for Outcome {
    fn name() -> Cow<'static, str> {
        "Outcome".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.extend([
            (Issued::name().into_owned(), Issued::schema()),
            (SoldOut::name().into_owned(), SoldOut::schema()),
            (Pending::name().into_owned(), Pending::schema()),
        ]);
    }
}

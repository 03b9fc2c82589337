"""A client as a Python user of openapi-generator would write it: generated from the documents of both APIs.

Claims a coupon both ways, repeats the claim, reads the outcome, and reads a problem.

    python openapi_generator.py QUEUE_URL SKIPLOCK_URL CAMPAIGN
"""

import sys
from types import ModuleType

import queue_api
import skiplock_api


def must(holds: bool, what: str, got: object) -> None:
    if not holds:
        raise SystemExit(f"{what}: {got}")


def body(package: ModuleType, account: int | str):
    return package.ClaimBody(account_id=package.ClaimBodyAccountId(account))


def claim(package: ModuleType, url: str, campaign: int, account: int | str, status: int) -> object:
    client = package.ApiClient(package.Configuration(host=url))
    claims = package.ClaimsApi(client)
    claimed = claims.claim_coupon_with_http_info(campaign, body(package, account))
    must(claimed.status_code == status, "claimed", claimed)
    must(claimed.headers["location"] == f"claims/{account}", "location", claimed.headers)
    outcome = claims.get_claim(campaign, int(account), wait="30s").actual_instance
    must(isinstance(outcome, package.Issued), "issued", outcome)
    again = claims.claim_coupon(campaign, body(package, account))
    must(isinstance(again, (package.Pending, package.Issued)), "repeated", again)

    try:
        refused: object = claims.claim_coupon(campaign, body(package, "0"))
    except package.exceptions.BadRequestException as error:
        refused = error.data
    must(isinstance(refused, package.ProblemDocument), "a problem", refused)
    must(refused.code == package.Code.INVALID_REQUEST and refused.var_field == "account_id", "what is wrong", refused)
    view = package.CampaignsApi(client).get_campaign(campaign)
    must(view.issued >= 1, "the campaign", view)
    return outcome.coupon_id


_, queue, skiplock, number = sys.argv
coupons = [
    claim(queue_api, queue, int(number), 46, 202),
    claim(skiplock_api, skiplock, int(number), "9007199254740997", 201),
]
must(coupons[0] != coupons[1], "two coupons", coupons)

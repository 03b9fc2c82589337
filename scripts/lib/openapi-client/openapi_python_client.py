"""A client as a user of openapi-python-client would write it: generated from the documents of both APIs.

Claims a coupon both ways, repeats the claim, reads the outcome, and reads a problem.

    python openapi_python_client.py QUEUE_URL SKIPLOCK_URL CAMPAIGN
"""

import sys
from types import ModuleType

import queue_api
import queue_api.api.campaigns.get_campaign
import queue_api.api.claims.claim_coupon
import queue_api.api.claims.get_claim
import queue_api.models
import skiplock_api
import skiplock_api.api.campaigns.get_campaign
import skiplock_api.api.claims.claim_coupon
import skiplock_api.api.claims.get_claim
import skiplock_api.models


def must(holds: bool, what: str, got: object) -> None:
    if not holds:
        raise SystemExit(f"{what}: {got}")


def claim(package: ModuleType, url: str, campaign: int, account: int | str, accepted: type, status: int):
    claims, models = package.api.claims, package.models
    client = package.Client(base_url=url)
    body = models.ClaimBody(account_id=account)
    claimed = claims.claim_coupon.sync_detailed(campaign, client=client, body=body)
    must(claimed.status_code == status and isinstance(claimed.parsed, accepted), "claimed", claimed)
    must(claimed.headers["location"] == f"claims/{account}", "location", claimed)
    outcome = claims.get_claim.sync(campaign, int(account), client=client, wait="30s")
    must(isinstance(outcome, models.Issued), "issued", outcome)
    again = claims.claim_coupon.sync(campaign, client=client, body=body)
    must(isinstance(again, (accepted, models.Issued)), "repeated", again)

    refused = claims.claim_coupon.sync(campaign, client=client, body=models.ClaimBody(account_id=0))
    must(isinstance(refused, models.ProblemDocument), "a problem", refused)
    must(refused.code is models.Code.INVALID_REQUEST and refused.field == "account_id", "what is wrong", refused)
    view = package.api.campaigns.get_campaign.sync(campaign, client=client)
    must(isinstance(view, models.CampaignView) and view.issued >= 1, "the campaign", view)
    return outcome.coupon_id


_, queue, skiplock, number = sys.argv
coupons = [
    # Too large for an exact JSON number; as a string it stays this account.
    claim(queue_api, queue, int(number), "9007199254740995", queue_api.models.Pending, 202),
    claim(skiplock_api, skiplock, int(number), 44, skiplock_api.models.Issued, 201),
]
must(coupons[0] != coupons[1], "two coupons", coupons)

// A client as a TypeScript user would write it: with types generated from the documents of both APIs, and no other
// knowledge of them. It claims a coupon from both APIs and reads the outcome. Compiling it checks the shapes in the
// documents; running it checks that the documents are true.
//
//   node client.js QUEUE_URL SKIPLOCK_URL CAMPAIGN

import createClient from "openapi-fetch";
import type { components as QueueWords, paths as QueuePaths } from "./queue.js";
import type { components as SkiplockWords, paths as SkiplockPaths } from "./skiplock.js";

type Outcome = QueueWords["schemas"]["Outcome"] | SkiplockWords["schemas"]["Outcome"];

function must(holds: boolean, what: string, got: unknown): void {
  if (!holds) throw new Error(`${what}: ${JSON.stringify(got)}`);
}

// The status decides the shape of an outcome: only an issued one has a coupon.
function couponOf(outcome: Outcome): string {
  switch (outcome.status) {
    case "issued":
      return outcome.coupon_id;
    case "sold_out":
    case "pending":
      throw new Error(`no coupon: ${outcome.status}`);
  }
}

async function claimOnTheQueueWay(baseUrl: string, campaign_id: number): Promise<string> {
  const api = createClient<QueuePaths>({ baseUrl });
  const claimed = await api.POST("/v1/campaigns/{campaign_id}/claims", {
    params: { path: { campaign_id } },
    body: { account_id: 42 },
  });
  must(claimed.response.status === 202 && claimed.data?.status === "pending", "accepted", claimed);
  must(claimed.response.headers.get("location") === "claims/42", "location", claimed.response.headers.get("location"));
  const outcome = await api.GET("/v1/campaigns/{campaign_id}/claims/{account_id}", {
    params: { path: { campaign_id, account_id: 42 }, query: { wait: "30s" } },
  });
  if (outcome.data === undefined) throw new Error(`refused: ${outcome.error.code}`);
  return couponOf(outcome.data);
}

async function claimOnTheSkiplockWay(baseUrl: string, campaign_id: number): Promise<string> {
  const api = createClient<SkiplockPaths>({ baseUrl });
  // Too large for an exact JavaScript number; as a string it stays this account.
  const body = { account_id: "9007199254740993" };
  const claimed = await api.POST("/v1/campaigns/{campaign_id}/claims", { params: { path: { campaign_id } }, body });
  must(claimed.response.status === 201, "issued", claimed);
  must(claimed.response.headers.get("location") === `claims/${body.account_id}`, "location", claimed);
  const again = await api.POST("/v1/campaigns/{campaign_id}/claims", { params: { path: { campaign_id } }, body });
  must(again.response.status === 200, "issued before", again);
  if (claimed.data === undefined || again.data === undefined) throw new Error("no outcome");
  must(claimed.data.coupon_id === again.data.coupon_id, "the same coupon", [claimed.data, again.data]);

  const refused = await api.POST("/v1/campaigns/{campaign_id}/claims", {
    params: { path: { campaign_id } },
    body: { account_id: 0 },
  });
  must(refused.error?.code === "invalid_request" && refused.error.field === "account_id", "refused", refused);
  const campaign = await api.GET("/v1/campaigns/{campaign_id}", { params: { path: { campaign_id } } });
  must(campaign.data?.id === campaign_id && campaign.data.issued >= 1, "the campaign", campaign);
  return couponOf(claimed.data);
}

const [, , queue = "", skiplock = "", campaign = ""] = process.argv;
const coupons = [
  await claimOnTheQueueWay(queue, Number(campaign)),
  await claimOnTheSkiplockWay(skiplock, Number(campaign)),
];
must(coupons[0] !== coupons[1], "two coupons", coupons);

"""Checks, by the files that a browser left in a folder, that a page rendered and called only its own service.

    python3 page-calls-nobody.py URL FOLDER

The folder holds page.html (the final state of the page), net.json (Chromium's net log) and log (with its console).
"""

import json
import pathlib
import sys

_, url, folder = sys.argv
folder = pathlib.Path(folder)

page = (folder / "page.html").read_text()
for part in ["Coupons:", "/v1/campaigns/{campaign_id}/claims", "opblock-post"]:
    if part not in page.replace("<wbr>", "").replace("\u200b", ""):
        sys.exit(f"the page does not show {part}: {page[:2000]}")

refused = [line for line in (folder / "log").read_text().splitlines() if "Content Security Policy" in line]
if refused:
    sys.exit("the page tried to load what its policy refuses:\n" + "\n".join(refused))

log = json.loads((folder / "net.json").read_text())
started = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
jobs = [event["params"] for event in log["events"] if event["type"] == started and "url" in event.get("params", {})]
# The browser also makes requests of its own, which no page has initiated.
asked = [job["url"] for job in jobs if job.get("initiator", "").startswith("http")]
elsewhere = [address for address in asked if not address.startswith(url + "/")]
if elsewhere:
    sys.exit("the page made requests elsewhere:\n" + "\n".join(elsewhere))
if url + "/openapi.json" not in asked:
    sys.exit(f"the page has not read its document: {asked}")
print(f"{url}/docs/: {len(asked)} requests, all to itself")

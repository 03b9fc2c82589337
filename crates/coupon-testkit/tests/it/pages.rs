//! What a service serves in addition to claims: its health, its `OpenAPI` document, and the page to try the API on.
//! Goal: they are true and always available to operators, and public only where a setting says so or nobody else can
//! connect.

use coupon_core::{AccountId, CampaignId};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::system::{System, start_consumer};

both_ways![
    health_is_reported,
    health_is_reported_while_clients_hold_all_connections,
    the_document_describes_every_route,
    the_page_is_served,
    only_the_api_is_public_unless_nobody_else_can_reach_it_or_a_setting_says_so,
];

async fn health_is_reported(system: &System) {
    let (live, ready) = (system.api.get("/livez").await, system.api.get("/readyz").await);

    let servers = if system.is_queue() {
        json!({"mysql": "up", "redis": "up", "rabbitmq": "up"})
    } else {
        json!({"mysql": "up"})
    };
    assert_eq!(live.status, 200);
    assert_eq!((ready.status, ready.json), (200, json!({"ready": true, "servers": servers})));
}

async fn health_is_reported_while_clients_hold_all_connections(system: &System) {
    let campaign = system.space.campaign(1).await;
    let service = system.another_service(&[("http-connections", "20")]).await;
    let admin = system.space.api(service.admin());
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = TcpStream::connect(service.address()).await.unwrap();
        let path = format!("/v1/campaigns/{campaign}/claims/1?wait=30s");
        client.write_all(format!("GET {path} HTTP/1.1\r\nhost: coupons\r\n\r\n").as_bytes()).await.unwrap();
        clients.push(client);
    }

    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(admin.get(path).await.status, 200, "{path}");
    }
    assert_eq!(admin.get("/v1/campaigns/1").await.code(), "no_such_route", "claims have a listener of their own");
    service.kill();
}

async fn the_document_describes_every_route(system: &System) {
    let answer = system.api.get("/openapi.json").await;

    assert_eq!(answer.status, 200);
    assert!(answer.json["openapi"].as_str().is_some_and(|version| version.starts_with("3.")), "{answer:?}");
    for (path, method, id, statuses) in [
        ("/v1/campaigns/{campaign_id}", "get", "getCampaign", &["200"][..]),
        ("/v1/campaigns/{campaign_id}/claims/{account_id}", "get", "getClaim", &["200"]),
        (
            "/v1/campaigns/{campaign_id}/claims",
            "post",
            "claimCoupon",
            &["200", if system.is_queue() { "202" } else { "201" }, "403", "409", "415", "429"],
        ),
    ] {
        let operation = &answer.json["paths"][path][method];
        assert_eq!(operation["operationId"], id);
        for status in statuses.iter().chain(&["400", "404", "408", "413", "500", "503", "default"]) {
            let response = &operation["responses"][status];
            assert!(response.is_object(), "{method} {path} does not describe {status}: {operation}");
            if !status.starts_with('2') {
                let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/ProblemDocument", "{method} {path} {status}");
            }
        }
    }
    let schemas = &answer.json["components"]["schemas"];
    let mapping = &schemas["Outcome"]["discriminator"]["mapping"];
    for (status, name) in [("issued", "Issued"), ("sold_out", "SoldOut"), ("pending", "Pending")] {
        assert_eq!(mapping[status], format!("#/components/schemas/{name}"));
        assert_eq!(schemas[name]["properties"]["status"]["enum"], json!([status]));
    }
    assert_eq!(schemas["CampaignId"]["maximum"], CampaignId::MAX.0);
    assert_eq!(schemas["AccountId"]["maximum"], AccountId::MAX.0);
    assert_eq!((&schemas["CampaignId"]["minimum"], &schemas["AccountId"]["minimum"]), (&json!(1), &json!(1)));
    let codes = schemas["Code"]["enum"].as_array().unwrap();
    for code in ["invalid_request", "sold_out", "request_timeout", "unavailable"] {
        assert!(codes.contains(&json!(code)), "{code}: {codes:?}");
    }
}

async fn the_page_is_served(system: &System) {
    // The client follows the redirection to the page's folder.
    for path in ["/docs", "/docs/"] {
        let answer = system.api.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").starts_with("text/html"), "{path}: {answer:?}");
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "the page may contact only its own service: {policy}"
        );
        let elsewhere = policy.split([' ', ';']).filter(|word| word.contains("//") || word.contains('*'));
        assert_eq!(elsewhere.count(), 0, "{policy}");
    }
    assert_eq!(system.api.get("/docs/swagger-ui-bundle.js").await.status, 200, "the page loads nothing from elsewhere");
    let settings = system.api.get("/docs/swagger-initializer.js").await.text;
    assert!(
        settings.contains("\"../openapi.json\""),
        "the path is relative, because a gateway may strip a prefix: {settings}"
    );
    assert!(settings.contains("\"validatorUrl\": \"none\""), "the page asks nobody else: {settings}");
}

async fn only_the_api_is_public_unless_nobody_else_can_reach_it_or_a_setting_says_so(system: &System) {
    const DOCUMENTS: [&str; 3] = ["/openapi.json", "/docs/", "/docs/swagger-ui-bundle.js"];
    const INTERNAL: [&str; 2] = ["/readyz", "/metrics"];

    let campaign = system.space.campaign(1).await;
    let reachable = [("listen", "0.0.0.0:0"), ("auth", "none")];
    for (settings, documents, internal) in [
        (&[][..], 200, 200),
        (&reachable, 404, 404),
        (&[reachable[0], reachable[1], ("public-pages", "docs")], 200, 404),
        (&[reachable[0], reachable[1], ("public-pages", "all")], 200, 200),
        (&[("public-pages", "none")], 404, 404),
    ] {
        let service = system.another_service(settings).await;
        let (public, admin) = (system.api_of(&service), system.space.api(service.admin()));
        let api = format!("/v1/campaigns/{campaign}");
        for (path, status) in
            DOCUMENTS.map(|path| (path, documents)).into_iter().chain(INTERNAL.map(|path| (path, internal)))
        {
            assert_eq!(public.get(path).await.status, status, "{path} with {settings:?}");
            assert_eq!(admin.get(path).await.status, 200, "{path}");
        }
        for path in [api.as_str(), "/livez"] {
            assert_eq!(public.get(path).await.status, 200, "{path} with {settings:?}");
        }
        assert_eq!(admin.get(&api).await.code(), "no_such_route");
    }
}

/// The consumer has no API, but reports its health.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_reports_its_health() {
    coupon_testkit::run(async |space| {
        let consumer = start_consumer(&space, &[]).await;
        let admin = space.api(consumer.address());

        coupon_testkit::eventually("it is ready", async || admin.get("/readyz").await.status == 200).await;

        assert_eq!(admin.get("/livez").await.status, 200);
        assert_eq!(admin.get("/v1/campaigns/1").await.code(), "no_such_route");
    })
    .await;
}

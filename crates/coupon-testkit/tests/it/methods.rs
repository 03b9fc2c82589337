//! The methods HEAD and OPTIONS. Goal: HEAD is answered like GET, and OPTIONS names the methods of a path. Method:
//! requests to every kind of path, also to one that does not exist.

use reqwest::Method;

use crate::system::System;

both_ways![head_is_answered_like_get, options_names_the_methods];

async fn head_is_answered_like_get(system: &System) {
    let campaign = system.space.campaign(5).await;
    let claim = format!("/v1/campaigns/{campaign}/claims/1");
    system.api.claim(campaign, 1).await;
    let paths = [format!("/v1/campaigns/{campaign}"), claim, String::from("/v1/campaigns/404404404")];
    let pages = ["/livez", "/readyz", "/openapi.json", "/docs/", "/docs/swagger-ui.css", "/nowhere"].map(String::from);

    for path in paths.into_iter().chain(pages) {
        // Each answer has a trace of its own, and the clock may have moved on to the next second.
        let headers = |answer: &coupon_testkit::Answer| {
            let mut headers = answer.headers.clone();
            headers.remove("traceparent");
            headers.remove("date");
            headers
        };
        let get = system.api.get(&path).await;
        let head = system.api.send(system.api.request(Method::HEAD, &path)).await;

        assert_eq!((head.status, headers(&head)), (get.status, headers(&get)), "{path}");
        assert_eq!(head.text, "", "{path}");
    }
    assert_eq!(system.api.send(system.api.request(Method::HEAD, "/metrics")).await.status, 200);
    assert_eq!(system.admin().send(system.admin().request(Method::HEAD, "/readyz")).await.status, 200);
}

async fn options_names_the_methods(system: &System) {
    let reads = "GET, HEAD, OPTIONS";
    for (path, methods) in [
        ("/v1/campaigns/1", reads),
        ("/v1/campaigns/1/claims", "POST, OPTIONS"),
        ("/v1/campaigns/1/claims/1", reads),
        ("/livez", reads),
        ("/readyz", reads),
        ("/metrics", reads),
        ("/openapi.json", reads),
        ("/docs/", reads),
    ] {
        let answer = system.api.send(system.api.request(Method::OPTIONS, path)).await;

        assert_eq!((answer.status, answer.header("allow"), &*answer.text), (204, methods, ""), "{path}");
    }
}

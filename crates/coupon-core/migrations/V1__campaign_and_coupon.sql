-- A campaign: a kind of coupon, its window (UTC; NULL = no bound) and its stock.
-- `coupons` counts the committed rows of `coupon` for this campaign: whoever inserts coupons adds to it in the same
-- transaction, so that a restock is seen by reading one row.
CREATE TABLE campaign (
    id        BIGINT UNSIGNED NOT NULL,
    name      VARCHAR(200)    NOT NULL,
    opens_at  DATETIME(3)     NULL,
    closes_at DATETIME(3)     NULL,
    coupons   BIGINT UNSIGNED NOT NULL DEFAULT 0,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- A coupon: a code nobody can guess (UUID v4), and the account that holds it; NULL = free.
-- The unique key gives an account at most one coupon of a campaign, and finds the free ones: they share the prefix
-- (campaign_id, NULL), of which a unique key allows any number.
CREATE TABLE coupon (
    id          BINARY(16)      NOT NULL,
    campaign_id BIGINT UNSIGNED NOT NULL,
    account_id  BIGINT UNSIGNED NULL,
    PRIMARY KEY (id),
    UNIQUE KEY coupon_campaign_account (campaign_id, account_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

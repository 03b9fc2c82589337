-- Claims of a paused campaign are refused until it is resumed.
ALTER TABLE campaign ADD COLUMN paused BOOLEAN NOT NULL DEFAULT FALSE;

-- Coupons that an operator has ordered, under a name: whoever inserts some of them adds to `loaded` in the same
-- transaction, so a load that was cut off is finished by repeating it, and a finished one adds nothing.
CREATE TABLE coupon_load (
    campaign_id BIGINT UNSIGNED NOT NULL,
    load_key    VARCHAR(100)    CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    coupons     BIGINT UNSIGNED NOT NULL,
    loaded      BIGINT UNSIGNED NOT NULL DEFAULT 0,
    PRIMARY KEY (campaign_id, load_key)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- What is there was loaded by `create`, and is complete.
INSERT INTO coupon_load (campaign_id, load_key, coupons, loaded) SELECT id, 'create', coupons, coupons FROM campaign;

-- What operators changed, a line for each change, written in its transaction.
CREATE TABLE campaign_change (
    id          BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    campaign_id BIGINT UNSIGNED NOT NULL,
    changed_at  DATETIME(3)     NOT NULL,
    what        VARCHAR(20)     NOT NULL,
    old         TEXT            NULL,
    new         TEXT            NOT NULL,
    who         VARCHAR(400)    NOT NULL,
    PRIMARY KEY (id),
    KEY campaign_change_campaign (campaign_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

-- Its one row is locked by the operator who makes or restocks campaigns: one at a time.
CREATE TABLE operator_lock (
    id TINYINT UNSIGNED NOT NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

INSERT INTO operator_lock (id) VALUES (1);

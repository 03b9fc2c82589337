-- Coupons lie in order of their campaign, and of their id within it: whoever takes free ones goes on behind the last it
-- took and reads no issued coupon and no entry of an index that a backup's snapshot keeps from being purged.
ALTER TABLE coupon
    DROP PRIMARY KEY,
    ADD PRIMARY KEY (campaign_id, id);

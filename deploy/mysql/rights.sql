-- The rights of each program in MySQL 8.0 and later and MariaDB 10.6 and later. docs/RIGHTS.md says why each is needed.
-- Replace {database}, {host} (% means any) and {password}, and give each user a password of its own.
-- Rights on tables come last, because the tables must exist: run `couponctl migrate` as the user couponctl before them.
-- There is one statement per line, because a server reads them like that at startup (--init-file).

CREATE USER IF NOT EXISTS 'producer-api'@'{host}' IDENTIFIED BY '{password}';
CREATE USER IF NOT EXISTS 'queue-consumer'@'{host}' IDENTIFIED BY '{password}';
CREATE USER IF NOT EXISTS 'skiplock-api'@'{host}' IDENTIFIED BY '{password}';
CREATE USER IF NOT EXISTS 'couponctl'@'{host}' IDENTIFIED BY '{password}';

-- couponctl creates the schema, loads and deletes coupons, and looks for triggers. coupon-bench also creates and audits
-- campaigns as this user.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, TRIGGER ON `{database}`.* TO 'couponctl'@'{host}';

-- A service reads the schema's version before it starts, the id of the installation, campaigns and their stock, and who
-- holds which coupon.
GRANT SELECT ON `{database}`.refinery_schema_history TO 'producer-api'@'{host}', 'queue-consumer'@'{host}', 'skiplock-api'@'{host}';
GRANT SELECT ON `{database}`.installation TO 'producer-api'@'{host}', 'queue-consumer'@'{host}';
GRANT SELECT ON `{database}`.campaign TO 'producer-api'@'{host}', 'queue-consumer'@'{host}', 'skiplock-api'@'{host}';
GRANT SELECT ON `{database}`.coupon TO 'producer-api'@'{host}', 'queue-consumer'@'{host}', 'skiplock-api'@'{host}';

-- account_id is the only column that is ever updated. SELECT … FOR UPDATE also needs this right.
GRANT UPDATE (account_id) ON `{database}`.coupon TO 'queue-consumer'@'{host}', 'skiplock-api'@'{host}';

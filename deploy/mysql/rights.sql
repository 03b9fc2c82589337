-- The rights of each program in MySQL 8.0 and later and MariaDB 10.6 and later. docs/RIGHTS.md says why each is needed.
-- Replace {database}, {host} (% is any) and {password}, and give each user a password of its own.
-- Rights on tables come last, because the tables must exist: run `couponctl migrate` as the user couponctl before them.
-- One statement per line, as a server reads them at its start (--init-file).

CREATE USER IF NOT EXISTS 'producer-api'@'{host}' IDENTIFIED BY '{password}';
CREATE USER IF NOT EXISTS 'queue-consumer'@'{host}' IDENTIFIED BY '{password}';
CREATE USER IF NOT EXISTS 'skiplock-api'@'{host}' IDENTIFIED BY '{password}';
CREATE USER IF NOT EXISTS 'couponctl'@'{host}' IDENTIFIED BY '{password}';

-- It creates the schema, loads and deletes coupons, and looks for triggers. coupon-bench creates and audits campaigns, too.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, TRIGGER ON `{database}`.* TO 'couponctl'@'{host}';

-- The version that a service checks before it starts; whose database it is; campaigns and their stock; who holds which
-- coupon.
GRANT SELECT ON `{database}`.refinery_schema_history TO 'producer-api'@'{host}', 'queue-consumer'@'{host}', 'skiplock-api'@'{host}';
GRANT SELECT ON `{database}`.installation TO 'producer-api'@'{host}', 'queue-consumer'@'{host}';
GRANT SELECT ON `{database}`.campaign TO 'producer-api'@'{host}', 'queue-consumer'@'{host}', 'skiplock-api'@'{host}';
GRANT SELECT ON `{database}`.coupon TO 'producer-api'@'{host}', 'queue-consumer'@'{host}', 'skiplock-api'@'{host}';

-- The only column that is ever updated. SELECT … FOR UPDATE needs this right, too.
GRANT UPDATE (account_id) ON `{database}`.coupon TO 'queue-consumer'@'{host}', 'skiplock-api'@'{host}';

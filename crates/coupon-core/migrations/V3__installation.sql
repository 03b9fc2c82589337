-- Which installation this database belongs to, in one row for all time: claims in RabbitMQ and keys in Redis carry its id,
-- so that a program never takes those of another installation on the same servers for its own.
CREATE TABLE IF NOT EXISTS installation (
    id       BINARY(16)       NOT NULL,
    only_row TINYINT UNSIGNED NOT NULL DEFAULT 1 CHECK (only_row = 1),
    PRIMARY KEY (only_row)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

INSERT IGNORE INTO installation (id) VALUES (UNHEX(REPLACE(UUID(), '-', '')));

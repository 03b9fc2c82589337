-- KEYS[1]: the refill lock. ARGV[1]: the token of whoever wants to free it.
-- Compare and delete in one step: between a GET and a DEL the lock could expire and be taken by another consumer.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0

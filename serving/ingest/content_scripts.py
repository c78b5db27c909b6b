"""The Lua that changes content inside the server, where a change and its sequence are one.

In: nothing. Out: texts for EVAL; all keys of a script lie in one hash slot.
"""

# KEYS: the last sequence of a tag. Out: the next one. A clock in milliseconds that never stands
# still: after a failover that lost the last writes, time alone has moved it on. Millisecond times
# stay below 2^42, a record's highest sequence, until the year 2109.
NEXT = """
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
local next = math.max(ms, last + 1)
redis.call('SET', KEYS[1], string.format('%.0f', next))
return next
"""

_HELD = """
local held = redis.call('HGET', KEYS[1], 'sequence') or redis.call('GET', KEYS[3]) or '0'
if tonumber(held) > tonumber(ARGV[1]) then return 0 end
"""

# KEYS: content, thumbnail, ended. ARGV: sequence, thumbnail ("": none), fields and values.
# Out: 1, or 0 if a later change was there first.
WRITE = (
    _HELD
    + """
redis.call('HSET', KEYS[1], 'sequence', ARGV[1], unpack(ARGV, 3))
if ARGV[2] == '' then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], ARGV[2]) end
redis.call('DEL', KEYS[3])
return 1
"""
)

# KEYS: the same. ARGV: sequence, seconds for which the end is remembered. Out: the same.
END = (
    _HELD
    + """
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('SET', KEYS[3], ARGV[1], 'EX', ARGV[2])
return 1
"""
)

# KEYS: content, thumbnail. Out: the content hash (or nil) and the thumbnail (or nil) of one moment.
PICTURE = "return {redis.call('HGET', KEYS[1], 'sha256'), redis.call('GET', KEYS[2])}"

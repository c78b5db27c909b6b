"""Lua of what is owed: each script is one step that happens whole or not at all.

In: KEYS stream, index and dead letters, all of one hash tag. Out: what `owed.py` makes of them. The
index holds, by member, the one entry that counts: an ad is in the stream once at most, so nothing
ever needs trimming, and an entry that is no longer the indexed one is gone.
"""

_DROP = """
local stream, index, dead, group = KEYS[1], KEYS[2], KEYS[3], 'checks'
local function now_ms()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end
local function gone(entry)
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
end
local function owe(member, since, tries)
  local entry = redis.call('XADD', stream, '*', 'member', member, 'since', since, 'tries', tries)
  redis.call('HSET', index, member, entry)
end
local function drop(member)
  local old = redis.call('HGET', index, member)
  if not old then return nil end
  redis.call('HDEL', index, member)
  if string.sub(old, 1, 1) == 'd' then
    redis.call('XDEL', dead, string.sub(old, 2))
    return nil
  end
  local found = redis.call('XRANGE', stream, old, old)
  gone(old)
  return found[1] and found[1][2][4]
end
"""

# ARGV: most, members... Returns 0 when it would be more than `most`, and then owes none of them.
ADD = (
    _DROP
    + """
local new = 0
for i = 2, #ARGV do new = new + 1 - redis.call('HEXISTS', index, ARGV[i]) end
if new > 0 and redis.call('HLEN', index) + new > tonumber(ARGV[1]) then return 0 end
for i = 2, #ARGV do owe(ARGV[i], drop(ARGV[i]) or string.format('%.0f', now_ms()), 0) end
return 1
"""
)

# ARGV: consumer, lease in ms, count. Entries of dead consumers first, then new ones.
TAKE = (
    _DROP
    + """
if redis.call('EXISTS', stream) == 0 then return {} end
if #redis.call('XINFO', 'GROUPS', stream) == 0 then
  redis.call('XGROUP', 'CREATE', stream, group, '0')
end
local count, taken = tonumber(ARGV[3]), {}
local function take(entries)
  for _, e in ipairs(entries) do
    if e and e[2] then
      local seen = redis.call('XPENDING', stream, group, e[1], e[1], 1)
      taken[#taken + 1] = {e[1], e[2][2], e[2][4], e[2][6], seen[1] and seen[1][4] or 1}
    end
  end
end
take(redis.call('XAUTOCLAIM', stream, group, ARGV[1], ARGV[2], '0-0', 'COUNT', count)[2])
if #taken < count then
  local new = redis.call('XREADGROUP', 'GROUP', group, ARGV[1], 'COUNT', count - #taken,
    'STREAMS', stream, '>')
  if new then take(new[1][2]) end
end
return taken
"""
)

# ARGV: member, entry. Returns 0 when the entry is not the one that counts any more.
SETTLE = (
    _DROP
    + """
local held = redis.call('HGET', index, ARGV[1]) == ARGV[2]
if held then redis.call('HDEL', index, ARGV[1]) end
gone(ARGV[2])
return held and 1 or 0
"""
)

# ARGV: member, entry, since, tries. To the end of the stream again.
RETRY = (
    _DROP
    + """
local held = redis.call('HGET', index, ARGV[1]) == ARGV[2]
gone(ARGV[2])
if held then owe(ARGV[1], ARGV[3], ARGV[4]) end
return held and 1 or 0
"""
)

# ARGV: member, entry, since, reason.
BURY = (
    _DROP
    + """
local held = redis.call('HGET', index, ARGV[1]) == ARGV[2]
gone(ARGV[2])
if held then
  local entry = redis.call('XADD', dead, '*', 'member', ARGV[1], 'since', ARGV[3],
    'reason', ARGV[4])
  redis.call('HSET', index, ARGV[1], 'd' .. entry)
end
return held and 1 or 0
"""
)

# ARGV: member.
FORGET = _DROP + "drop(ARGV[1])"

# ARGV: count. Oldest first. Returns how many are owed again.
REVIVE = (
    _DROP
    + """
local found = redis.call('XRANGE', dead, '-', '+', 'COUNT', ARGV[1])
for _, e in ipairs(found) do
  redis.call('XDEL', dead, e[1])
  owe(e[2][2], e[2][4], 0)
end
return #found
"""
)

# Returns owed, of these taken, dead letters, and the age of the first in ms.
STATE = (
    _DROP
    + """
local first, taken = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1), 0
if first[1] and #redis.call('XINFO', 'GROUPS', stream) > 0 then
  taken = redis.call('XPENDING', stream, group)[1]
end
local age = first[1] and math.max(0, now_ms() - first[1][2][4]) or 0
return {redis.call('XLEN', stream), taken, redis.call('XLEN', dead), age}
"""
)

# ARGV: idle ms. Forgets consumers that hold nothing; atomic, since one that holds would lose it.
PRUNE = (
    _DROP
    + """
if redis.call('EXISTS', stream) == 0 or #redis.call('XINFO', 'GROUPS', stream) == 0 then
  return 0
end
local pruned = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local found = {}
  for i = 1, #consumer, 2 do found[consumer[i]] = consumer[i + 1] end
  if found.pending == 0 and found.idle > tonumber(ARGV[1]) then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, found.name)
    pruned = pruned + 1
  end
end
return pruned
"""
)

"""The Lua that runs inside the server, where a change must be atomic with its ad's marks.

In: nothing. Out: the scripts of block marks and of versions; those of records are beside them, in
write_scripts.py, and `ALL` has them all.
"""

from .lua import COMMON, Script
from .write_scripts import DELETE, FLAGS, WRITE, WRITE_BUCKETS

# KEYS: marks, then n x k records, ad by ad. ARGV: syndromes, k, ids, tombstones (24 n k bytes, to
# stand where an ad is unknown), mark bits to set, mark bits to clear, reason. Out: ads marked.
MARK = Script(
    COMMON
    + """
local k, ids, blob = tonumber(ARGV[2]), ARGV[3], ARGV[4]
local setting, clear, reason = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local n, changed = #ids / 8, 0
for i = 1, n do
  local id = sub(ids, 8 * i - 7, 8 * i)
  local old = call('HGET', KEYS[1], id)
  local bits = old and band(byte(old), 48) or 0
  local on = setting
  if setting == 32 then
    -- A verdict is of an ad: where it has ended meanwhile, or never was, nothing is marked.
    local there = false
    for v = 1, k do
      local rec = get(KEYS[(i - 1) * k + v + 1], id)
      there = there or (known(rec) and not absent(rec))
    end
    if not there then on = 0 end
  end
  local new = band(bits, 255 - clear)
  new = new + band(on, 255 - new)
  if new ~= bits then changed = changed + 1 end
  if new == 0 then
    if old then call('HDEL', KEYS[1], id) end
  elseif on ~= 0 then
    call('HSET', KEYS[1], id, char(new) .. reason)
  elseif old then
    call('HSET', KEYS[1], id, char(new + band(byte(old), 128)) .. sub(old, 2))
  end
  local ended = on == 0 and old and byte(old) >= 128
  for v = 1, k do
    local j = (i - 1) * k + v
    local key = KEYS[j + 1]
    local rec = get(key, id)
    if not known(rec) then
      rec = nil
      if new ~= 0 and not ended then rec = sub(blob, 24 * j - 23, 24 * j) end
    end
    if rec then
      if new == 0 and absent(rec) then
        del(key, id)
      else
        set(key, id, patch(rec, 17, byte(rec, 17) - marks(rec) + new))
      end
    end
  end
end
return changed
"""
)

# KEYS: marks, then k records of tombstones' ads in a version that begins. ARGV: syndromes, ids,
# tombstones. Sets what is marked now, not ended, and unknown in that version.
CARRY = Script(
    COMMON
    + """
local ids, blob = ARGV[2], ARGV[3]
for i = 1, #KEYS - 1 do
  local id = sub(ids, 8 * i - 7, 8 * i)
  local mark = call('HGET', KEYS[1], id)
  local bits = mark and byte(mark) or 128
  if bits < 128 and not get(KEYS[i + 1], id) then
    local rec = sub(blob, 24 * i - 23, 24 * i)
    set(KEYS[i + 1], id, patch(rec, 17, byte(rec, 17) + band(bits, 48)))
  end
end
return #KEYS - 1
"""
)

# KEYS: pointer, registry. ARGV: syndromes (unused), the pointer that is expected ("" for none),
# the new pointer, then name, value pairs for the registry ("" removes). Out: 1, or 0 if others
# were there first.
COMMIT = Script(
    """
local was = redis.call('GET', KEYS[1]) or ''
if was ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[3])
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[2], ARGV[i])
  else redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
end
return 1
"""
)

ALL = (WRITE, WRITE_BUCKETS, MARK, CARRY, DELETE, FLAGS, COMMIT)

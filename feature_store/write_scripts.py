"""The Lua that changes records: write, delete, update of flags.

In: nothing. Out: `Script`s. A write has one for each layout, with the same rules about what wins.
"""

from .lua import COMMON, Script

# What becomes of record `rec`, row i of a write, where `was` is stored: the record to store, or
# nil where the stored sequence is higher. KEYS: marks, counts, ended. ARGV: syndromes, version
# number, ids (8 n bytes), records (24 n bytes), sequenced ("1" if the records have sequences).
# Where nothing is stored and no ad of the tag is marked or has ended of late (`fresh`), there is
# nothing to merge, and loops leave it out: most rows of a bulk load.
_MERGE = """
local ids, blob, sequenced = ARGV[3], ARGV[4], ARGV[5] == '1'
local marked = call('EXISTS', KEYS[1]) == 1
local ended = sequenced and call('EXISTS', KEYS[3]) == 1
local fresh, created = not marked and not ended, 0
local function late(i, rec)
  local name = sub(ids, 8 * i - 7, 8 * i) .. struct.pack('<I2', ARGV[2])
  local stone = call('HGET', KEYS[3], name)
  if not stone then return false end
  local sequence, until_s = struct.unpack('<I6I4', stone)
  if tonumber(call('TIME')[1]) >= until_s then return false end
  return floor(bits48(rec) / 64) < sequence
end
local function merge(i, rec, was)
  if known(was) then
    local a, b, c, d, e, f = byte(was, 17, 22)
    local low = a % 64
    if sequenced then
      local A, B, C, D, E, F = byte(rec, 17, 22)
      if F < f or F == f and (E < e or E == e and (D < d or D == d and (C < c or C == c and (B < b
        or B == b and A - A % 64 < a - low)))) then return nil end
    elseif b ~= 0 or c ~= 0 or d ~= 0 or e ~= 0 or f ~= 0 or a >= 64 then
      -- The record has no sequence yet: the stored one is put into its place.
      local sum = bxor(flip(17, a - low), flip(18, b), flip(19, c), flip(20, d), flip(21, e),
        flip(22, f))
      local lo, hi = byte(rec, 23, 24)
      rec = sub(rec, 1, 16) .. char(byte(rec, 17) + a - low, b, c, d, e, f,
        bxor(lo, sum % 256), bxor(hi, floor(sum / 256)))
    end
    if low >= 8 then
      if absent(was) then
        if ended and late(i, rec) then return nil end
        created = created + 1
      end
      local mark = low - low % 16
      if mark ~= 0 then rec = patch(rec, 17, byte(rec, 17) + mark) end
    end
    return rec
  end
  if ended and late(i, rec) then return nil end
  created = created + 1
  if marked then
    local id = sub(ids, 8 * i - 7, 8 * i)
    local mark = call('HGET', KEYS[1], id)
    if mark then
      local bits = byte(mark)
      rec = patch(rec, 17, byte(rec, 17) + band(bits, 48))
      if bits >= 128 then call('HSET', KEYS[1], id, char(bits - 128) .. sub(mark, 2)) end
    end
  end
  return rec
end
"""

# KEYS also: n records. Out: {written, ignored}.
WRITE = Script(
    COMMON
    + _MERGE
    + """
local n, args, m = #KEYS - 3, {}, 0
local old = call('MGET', unpack(KEYS, 4))
for i = 1, n do
  local rec, was = sub(blob, 24 * i - 23, 24 * i), old[i]
  if was or not fresh then rec = merge(i, rec, was) else created = created + 1 end
  if rec then
    args[m + 1], args[m + 2] = KEYS[i + 3], rec
    m = m + 2
  end
end
if m > 0 then call('MSET', unpack(args, 1, m)) end
if created ~= 0 then call('HINCRBY', KEYS[2], ARGV[2], created) end
return {m / 2, n - m / 2}
"""
)

# KEYS also: buckets. ARGV also: rows of each bucket (2 bytes each, little-endian), and each row's
# width of field (1 byte each); rows stand in the order of their buckets. Out: {written, ignored}.
WRITE_BUCKETS = Script(
    COMMON
    + _MERGE
    + """
local n, written, i, runs, widths = #ids / 8, 0, 0, ARGV[6], ARGV[7]
for b = 1, #KEYS - 3 do
  local key, lo, hi = KEYS[b + 3], byte(runs, 2 * b - 1, 2 * b)
  local count, names, args, m = lo + 256 * hi, {}, {}, 0
  for j = 1, count do
    local at = 8 * (i + j) - 8
    names[j] = sub(ids, at + 1, at + byte(widths, i + j))
  end
  local old = call('HMGET', key, unpack(names))
  for j = 1, count do
    local at = i + j
    local rec, was = sub(blob, 24 * at - 23, 24 * at), old[j]
    if was or not fresh then rec = merge(at, rec, was) else created = created + 1 end
    if rec then
      args[m + 1], args[m + 2] = names[j], rec
      m = m + 2
    end
  end
  if m > 0 then call('HSET', key, unpack(args, 1, m)) end
  i, written = i + count, written + m / 2
end
if created ~= 0 then call('HINCRBY', KEYS[2], ARGV[2], created) end
return {written, n - written}
"""
)

# KEYS: marks, counts, ended, n x k records. ARGV: syndromes, k, ids, the delete's sequence ("" for
# none), seconds that tombstones live, then k version numbers. A record of a higher sequence stays.
# Else its sequence, or the delete's, outlives it for a while under `ended`, so that a write which
# was begun before does not bring the ad back; each run removes some that are over, so there are
# never many. A human mark stays and is noted as ended (128), a verdict's goes. Out: ads removed.
DELETE = Script(
    COMMON
    + """
local k, ids, given, life = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local removed, stones, now = 0, 0, tonumber(call('TIME')[1])
for i = 1, #ids / 8 do
  local id, gone, stays = sub(ids, 8 * i - 7, 8 * i), 0, false
  for v = 1, k do
    local key, number = KEYS[(i - 1) * k + v + 3], ARGV[5 + v]
    local rec, sequence = get(key, id), given or 0
    local stored = known(rec) and floor(bits48(rec) / 64) or 0
    if given and stored > given then
      stays = true
    else
      if rec then
        del(key, id)
        if not (known(rec) and absent(rec)) then
          call('HINCRBY', KEYS[2], number, -1)
          gone = 1
        end
      end
      if stored > sequence then sequence = stored end
      if sequence > 0 then
        local name = id .. struct.pack('<I2', number)
        local stone = call('HGET', KEYS[3], name)
        if stone then sequence = math.max(sequence, (struct.unpack('<I6', stone))) end
        call('HSET', KEYS[3], name, struct.pack('<I6I4', sequence, now + life))
        stones = stones + 1
      end
    end
  end
  removed = removed + gone
  local mark = not stays and call('HGET', KEYS[1], id)
  if mark then
    if band(byte(mark), 16) ~= 0 then
      call('HSET', KEYS[1], id, char(16 + 128) .. sub(mark, 2))
    else
      call('HDEL', KEYS[1], id)
    end
  end
end
if stones > 0 then
  call('EXPIRE', KEYS[3], life)
  local some = call('HRANDFIELD', KEYS[3], 2 * stones, 'WITHVALUES')
  for j = 1, #some, 2 do
    local _, until_s = struct.unpack('<I6I4', some[j + 1])
    if until_s <= now then call('HDEL', KEYS[3], some[j]) end
  end
end
return removed
"""
)

# KEYS: n x k records. ARGV: syndromes, k, ids, bits to set, bits to clear. Out: records changed.
FLAGS = Script(
    COMMON
    + """
local k, ids, changed = tonumber(ARGV[2]), ARGV[3], 0
local set_bits, clear = tonumber(ARGV[4]), tonumber(ARGV[5])
for i = 1, #KEYS do
  local at = 8 * floor((i - 1) / k)
  local id = sub(ids, at + 1, at + 8)
  local rec = get(KEYS[i], id)
  if known(rec) and not absent(rec) then
    local lo, hi = byte(rec, 13, 14)
    local flags = lo + 256 * hi
    local new = band(flags, 65535 - clear)
    new = new + band(set_bits, 65535 - new)
    if new ~= flags then
      set(KEYS[i], id, patch(patch(rec, 13, new % 256), 14, floor(new / 256)))
      changed = changed + 1
    end
  end
end
return changed
"""
)

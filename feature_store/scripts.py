"""The Lua that runs inside the server, where a change must be atomic with its ad's marks.

In: nothing. Out: `Script`s (text and SHA-1). Every script touches the keys of one hash tag only.
Each gets `SYNDROMES` (docs/wire_format.md, "Changing a record in place") as its first argument,
and changes sealed records bit by bit with it.
"""

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    """Server-side code and the name that EVALSHA knows it by."""

    text: str
    sha: bytes = field(init=False)

    def __post_init__(self) -> None:
        # SHA-1 is the name that the protocol gives scripts; nothing is kept secret by it.
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest.encode())


# Positions below count from 1. Byte 17 holds format (bits 0-2), absent (8), marks (16, 32) and
# the two low bits of the sequence; bytes 17-22 as one number are the control word's low 48 bits.
_COMMON = """
local byte, sub, char, floor = string.byte, string.sub, string.char, math.floor
local bxor, band = bit.bxor, bit.band
local SYN = ARGV[1]
local function patch(rec, at, new)
  local diff = bxor(byte(rec, at), new)
  if diff == 0 then return rec end
  local lo, hi = byte(rec, 23, 24)
  local base = (at - 1) * 16
  for b = 0, 7 do
    if band(diff, 2 ^ b) ~= 0 then
      lo = bxor(lo, byte(SYN, base + 2 * b + 1))
      hi = bxor(hi, byte(SYN, base + 2 * b + 2))
    end
  end
  return sub(rec, 1, at - 1) .. char(new) .. sub(rec, at + 1, 22) .. char(lo, hi)
end
local function known(rec) return rec and #rec == 24 and byte(rec, 17) % 8 == 1 end
local function marks(rec) return band(byte(rec, 17), 48) end
local function absent(rec) return band(byte(rec, 17), 8) ~= 0 end
"""

# KEYS: marks, counts, n records. ARGV: syndromes, version, ids (8 n bytes), records (24 n bytes),
# sequenced ("1" if the records carry a sequence of their own). Out: {written, ignored}.
WRITE = Script(
    _COMMON
    + """
local n, ids, blob, sequenced = #KEYS - 2, ARGV[3], ARGV[4], ARGV[5] == '1'
local old = redis.call('MGET', unpack(KEYS, 3))
local marked, args, m, created, ignored = nil, {}, 0, 0, 0
for i = 1, n do
  local was, rec, keep = old[i], sub(blob, 24 * i - 23, 24 * i), true
  if known(was) then
    local a, b, c, d, e, f = byte(was, 17, 22)
    if b ~= 0 or c ~= 0 or d ~= 0 or e ~= 0 or f ~= 0 or a >= 64 then
      if sequenced then
        local x = floor(struct.unpack('<I6', was, 17) / 64)
        keep = floor(struct.unpack('<I6', rec, 17) / 64) >= x
      else
        rec = patch(rec, 17, band(byte(rec, 17), 63) + (a - a % 64))
        for at = 18, 22 do rec = patch(rec, at, byte(was, at)) end
      end
    end
    if keep and absent(was) then created = created + 1 end
    local mark = a % 64 - a % 16
    if mark ~= 0 then rec = patch(rec, 17, byte(rec, 17) + mark) end
  else
    created = created + 1
    if marked == nil then marked = redis.call('HLEN', KEYS[1]) > 0 end
    if marked then
      local id = sub(ids, 8 * i - 7, 8 * i)
      local mark = redis.call('HGET', KEYS[1], id)
      if mark then
        local bits = byte(mark)
        rec = patch(rec, 17, byte(rec, 17) + band(bits, 48))
        if bits >= 128 then
          redis.call('HSET', KEYS[1], id, char(bits - 128) .. sub(mark, 2))
        end
      end
    end
  end
  if keep then
    args[m + 1], args[m + 2] = KEYS[i + 2], rec
    m = m + 2
  else
    ignored = ignored + 1
  end
end
if m > 0 then redis.call('MSET', unpack(args, 1, m)) end
if created ~= 0 then redis.call('HINCRBY', KEYS[2], ARGV[2], created) end
return {n - ignored, ignored}
"""
)

# KEYS: marks, then n x k records, ad by ad. ARGV: syndromes, k, ids, tombstones (24 n k bytes, to
# stand where an ad is unknown), mark bits to set, mark bits to clear, reason. Out: ads marked.
MARK = Script(
    _COMMON
    + """
local k, ids, blob = tonumber(ARGV[2]), ARGV[3], ARGV[4]
local set, clear, reason = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local n, changed = #ids / 8, 0
for i = 1, n do
  local id = sub(ids, 8 * i - 7, 8 * i)
  local old = redis.call('HGET', KEYS[1], id)
  local bits = old and band(byte(old), 48) or 0
  local on = set
  if set == 32 then
    -- A verdict is of an ad: where it has ended meanwhile, or never was, nothing is marked.
    local there = false
    for v = 1, k do
      local rec = redis.call('GET', KEYS[(i - 1) * k + v + 1])
      there = there or (known(rec) and not absent(rec))
    end
    if not there then on = 0 end
  end
  local new = band(bits, 255 - clear)
  new = new + band(on, 255 - new)
  if new ~= bits then changed = changed + 1 end
  if new == 0 then
    if old then redis.call('HDEL', KEYS[1], id) end
  elseif on ~= 0 then
    redis.call('HSET', KEYS[1], id, char(new) .. reason)
  elseif old then
    redis.call('HSET', KEYS[1], id, char(new + band(byte(old), 128)) .. sub(old, 2))
  end
  local ended = on == 0 and old and byte(old) >= 128
  for v = 1, k do
    local j = (i - 1) * k + v
    local key = KEYS[j + 1]
    local rec = redis.call('GET', key)
    if not known(rec) then
      rec = nil
      if new ~= 0 and not ended then rec = sub(blob, 24 * j - 23, 24 * j) end
    end
    if rec then
      if new == 0 and absent(rec) then
        redis.call('DEL', key)
      else
        redis.call('SET', key, patch(rec, 17, byte(rec, 17) - marks(rec) + new))
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
    _COMMON
    + """
local ids, blob = ARGV[2], ARGV[3]
for i = 1, #KEYS - 1 do
  local mark = redis.call('HGET', KEYS[1], sub(ids, 8 * i - 7, 8 * i))
  local bits = mark and byte(mark) or 128
  if bits < 128 and redis.call('EXISTS', KEYS[i + 1]) == 0 then
    local rec = sub(blob, 24 * i - 23, 24 * i)
    redis.call('SET', KEYS[i + 1], patch(rec, 17, byte(rec, 17) + band(bits, 48)))
  end
end
return #KEYS - 1
"""
)

# KEYS: marks, counts, n x k records. ARGV: syndromes, k, ids, then k version numbers. A human
# mark stays and is noted as ended (128), a verdict's mark goes with its ad. Out: ads removed.
DELETE = Script(
    _COMMON
    + """
local k, ids, removed = tonumber(ARGV[2]), ARGV[3], 0
for i = 1, #ids / 8 do
  local id = sub(ids, 8 * i - 7, 8 * i)
  local gone = 0
  for v = 1, k do
    local key = KEYS[(i - 1) * k + v + 2]
    local rec = redis.call('GET', key)
    if rec then
      redis.call('DEL', key)
      if not (known(rec) and absent(rec)) then
        redis.call('HINCRBY', KEYS[2], ARGV[3 + v], -1)
        gone = 1
      end
    end
  end
  removed = removed + gone
  local mark = redis.call('HGET', KEYS[1], id)
  if mark then
    if band(byte(mark), 16) ~= 0 then
      redis.call('HSET', KEYS[1], id, char(16 + 128) .. sub(mark, 2))
    else
      redis.call('HDEL', KEYS[1], id)
    end
  end
end
return removed
"""
)

# KEYS: n records. ARGV: syndromes, bits to set, bits to clear. Out: records changed.
FLAGS = Script(
    _COMMON
    + """
local set, clear, changed = tonumber(ARGV[2]), tonumber(ARGV[3]), 0
for i = 1, #KEYS do
  local rec = redis.call('GET', KEYS[i])
  if known(rec) and not absent(rec) then
    local lo, hi = byte(rec, 13, 14)
    local flags = lo + 256 * hi
    local new = band(flags, 65535 - clear)
    new = new + band(set, 65535 - new)
    if new ~= flags then
      rec = patch(patch(rec, 13, new % 256), 14, floor(new / 256))
      redis.call('SET', KEYS[i], rec)
      changed = changed + 1
    end
  end
end
return changed
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

ALL = (WRITE, MARK, CARRY, DELETE, FLAGS, COMMIT)

"""What all server-side code begins with: `Script`s, and Lua that reads and changes sealed records.

In: nothing. Out: `Script` (text and SHA-1), `COMMON`. Every script touches the keys of one hash tag
only. Each gets `SYNDROMES` (docs/wire_format.md, "Changing a record in place") as its first
argument, and changes sealed records bit by bit with it. A key that names a record is that record's
own, or its bucket: then the record is the field of its id.
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
# A record's own key ends with "}" and the id, 8 bytes; a bucket's with "}" and 3 bytes.
COMMON = """
local call, gsub = redis.call, string.gsub
local byte, sub, char, floor = string.byte, string.sub, string.char, math.floor
local bxor, band = bit.bxor, bit.band
local SYN = ARGV[1]
local flips = {}
local function flip(at, diff)
  local sum = flips[256 * at + diff]
  if sum then return sum end
  sum = 0
  local base = (at - 1) * 16
  for b = 0, 7 do
    if band(diff, 2 ^ b) ~= 0 then
      local lo, hi = byte(SYN, base + 2 * b + 1, base + 2 * b + 2)
      sum = bxor(sum, lo + 256 * hi)
    end
  end
  flips[256 * at + diff] = sum
  return sum
end
local function patch(rec, at, new)
  local diff = bxor(byte(rec, at), new)
  if diff == 0 then return rec end
  local sum, lo, hi = flip(at, diff), byte(rec, 23, 24)
  return sub(rec, 1, at - 1) .. char(new) .. sub(rec, at + 1, 22)
    .. char(bxor(lo, sum % 256), bxor(hi, floor(sum / 256)))
end
local function known(rec) return rec and #rec == 24 and byte(rec, 17) % 8 == 1 end
local function marks(rec) return band(byte(rec, 17), 48) end
local function absent(rec) return band(byte(rec, 17), 8) ~= 0 end
local function bits48(rec)
  local a, b, c, d, e, f = byte(rec, 17, 22)
  return a + 256 * (b + 256 * (c + 256 * (d + 256 * (e + 256 * f))))
end
local function plain(key) return byte(key, -9) == 125 end
local function field(id) return (gsub(id, '%z+$', '')) end
local function get(key, id)
  if plain(key) then return call('GET', key) end
  return call('HGET', key, field(id))
end
local function set(key, id, rec)
  if plain(key) then return call('SET', key, rec) end
  return call('HSET', key, field(id), rec)
end
local function del(key, id)
  if plain(key) then return call('DEL', key) end
  return call('HDEL', key, field(id))
end
"""

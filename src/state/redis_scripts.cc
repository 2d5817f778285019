#include "state/redis_scripts.h"

#include <openssl/evp.h>

#include "base/digest.h"

namespace spore::state {
namespace {

// How a value lies in Redis. All keys of one value begin with spore:{TENANT:KEY}: and so are on one server of a
// cluster; behind that prefix:
//
//   m            its manifest, a hash: e epoch (16 hexadecimal digits), n number, s size,
//                z "PAGE:NUMBER,...": by which push the pages from PAGE on were last cut off or cleared as a whole
//   c:INDEX      a chunk, a string: 65 numbers of 8 bytes (of the last push that changed the chunk, and of each
//   page's),
//                then its bytes, those at the end that were never pushed left out
//   x, xl        results of named pushes by name, a hash, and their names in order, a list
//   p            pins, a sorted set: EPOCH:NUMBER:ID by the end of its lease in ms
//   k            what is kept for pins, a hash: EPOCH:INDEX -> "NUMBERc,NUMBERz,...": up to version NUMBER the chunk
//                was what is in o:EPOCH:NUMBER:INDEX (c), or zeros (z)
//   o:...        a chunk kept for pins
//   t:PUSH:INDEX what a large push has brought so far, see push; with a time to live
//   l            its lock, a hash: t last token (of a grant for writing, or raised when a lease ran out), w who holds
//   it for writing, wt the token, we the end
//                of the lease, p poisoned, r:OWNER the end of a reader's lease
//
// Of a tenant, all beginning with spore:{TENANT}: and so on one server: i the keys, a sorted set with all scores 0;
// s a hash of KEY -> EPOCH:NUMBER:SIZE:MS, where MS is when that was written; b the sum of the sizes.
//
// A script first looks at a key that never exists (`probe`): where the slot is just being moved to another server, that
// fails before anything is written, and the client tries again; what follows cannot fail half way for that reason.
constexpr const char* kPrelude = R"lua(
local HEADER, CHUNK, PAGE, PAGES = 520, 262144, 4096, 64
local SIZE_MAX = 4294901760
local KEEP_MS = '600000'
local base = string.sub(KEYS[1], 1, -2)
local function text(n) return string.format('%.0f', n) end
local function probe() redis.call('EXISTS', KEYS[1], base .. 'none') end
local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
)lua";

constexpr const char* kValuePrelude = R"lua(
local function chunk_key(i) return base .. 'c:' .. text(i) end
local function copy_key(epoch, number, i) return base .. 'o:' .. epoch .. ':' .. text(number) .. ':' .. text(i) end
local function u64(bytes, at) return (struct.unpack('<I8', bytes, at)) end
local function manifest()
  local f = redis.call('HMGET', KEYS[1], 'e', 'n', 's', 'z')
  return {e = f[1] or '', n = tonumber(f[2] or 0), s = tonumber(f[3] or 0), z = f[4] or ''}
end
-- By which push `page` was last cut off or cleared with all that follow it; 0: by none.
local function zeroed(z, page)
  local last = 0
  for p, n in string.gmatch(z, '(%d+):(%d+)') do
    if tonumber(p) <= page then last = math.max(last, tonumber(n)) end
  end
  return last
end
-- The numbers of the versions of this epoch that somebody has pinned, ascending.
local function pinned(epoch)
  local out, seen = {}, {}
  if redis.call('EXISTS', base .. 'p') == 0 then return out end
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', base .. 'p', text(now_ms()), '+inf')) do
    local e, n = string.match(member, '^(%x+):(%d+):')
    if e == epoch and not seen[n] then
      seen[n] = true
      out[#out + 1] = tonumber(n)
    end
  end
  table.sort(out)
  return out
end
local function is_pinned(member)
  local lease_end = redis.call('ZSCORE', base .. 'p', member)
  return lease_end and tonumber(lease_end) >= now_ms()
end
-- Keeps chunk i, of which `length` bytes are there, for the pins `live`; with how = 'RENAME' it is gone from its place.
-- False: nobody needs it.
local function keep(m, i, length, live, how)
  if #live == 0 then return false end
  local key = chunk_key(i)
  local since = zeroed(m.z, i * PAGES + PAGES - 1)
  if length > 0 then since = math.max(since, u64(redis.call('GETRANGE', key, 0, 7), 1)) end
  if live[#live] < since then return false end
  local field = m.e .. ':' .. text(i)
  local out, below = '', 0
  for n, kind in string.gmatch(redis.call('HGET', base .. 'k', field) or '', '(%d+)([cz]),') do
    local wanted = false
    n = tonumber(n)
    for _, p in ipairs(live) do
      if p > below and p <= n then wanted = true end
    end
    if wanted then
      out = out .. text(n) .. kind .. ','
    elseif kind == 'c' then
      redis.call('UNLINK', copy_key(m.e, n, i))
    end
    below = n
  end
  if length > 0 then
    local copy = copy_key(m.e, m.n, i)
    redis.call(how, key, copy)
    redis.call('PEXPIRE', copy, KEEP_MS)
  end
  redis.call('HSET', base .. 'k', field, out .. text(m.n) .. (length > 0 and 'c' or 'z') .. ',')
  redis.call('PEXPIRE', base .. 'k', KEEP_MS)
  return true
end
local function each_copy(what)
  local all = redis.call('HGETALL', base .. 'k')
  for at = 1, #all, 2 do
    local e, i = string.match(all[at], '^(%x+):(%d+)$')
    for n in string.gmatch(all[at + 1], '(%d+)c,') do what(copy_key(e, tonumber(n), tonumber(i))) end
  end
end
-- Where chunk i of version `number` is: a key, 'z' for zeros, nil where it is lost.
local function place_of(m, epoch, number, i)
  for n, kind in string.gmatch(redis.call('HGET', base .. 'k', epoch .. ':' .. text(i)) or '', '(%d+)([cz]),') do
    if tonumber(n) >= number then
      if kind == 'z' then return 'z' end
      local copy = copy_key(epoch, tonumber(n), i)
      return redis.call('EXISTS', copy) == 1 and copy or nil
    end
  end
  if m.e ~= epoch then return 'z' end
  if zeroed(m.z, i * PAGES + PAGES - 1) > number then return nil end
  local key = chunk_key(i)
  local head = redis.call('GETRANGE', key, 0, 7)
  if head ~= '' and u64(head, 1) > number then return nil end
  return key
end
-- May what is pinned as `member` still be read? Its epoch and number, or nil.
local function version_of(m, member)
  local e, n = string.match(member, '^(%x+):(%d+):')
  n = tonumber(n)
  if (m.e == e and m.n == n) or is_pinned(member) then return e, n end
end
)lua";

// push: ARGV 1 epoch for a value that is made; 2 size or ''; 3 expected: '', '-' (no value), EPOCH:NUMBER; 4 once; 5
// lock token or ''; 6 merge: '', sum, min, max; 7 element: i32, i64, f32, f64; 8 flags: c may make the value, r
// replace, a append; 9 the name of what was staged; 10 operations, each five u32: chunk, offset, length, kind, from; 11
// bytes that operations of kind 1 take, at `from`; 12... bytes.
//   kinds: 0 ARGV[12 + from]; 1 a part of ARGV[11]; 2 a part of t:PUSH:CHUNK; 3 t:PUSH:CHUNK becomes the chunk
// Gives {'ok', EPOCH:NUMBER before, or '-', EPOCH:NUMBER after, size, size before or ''} or why not: {'version', is},
// {'token'},
// {'missing'}, {'make'} (there is none; ask again with c), {'size', s}, {'staged'}.
constexpr const char* kPush = R"lua(
local new_epoch, size_text, expected, once, token = unpack(ARGV, 1, 5)
local merge, element, flags, staged, ops, small = unpack(ARGV, 6, 11)
local may_make = string.find(flags, 'c', 1, true)
local replace = string.find(flags, 'r', 1, true)
local append = string.find(flags, 'a', 1, true)
probe()
if once ~= '' then
  local seen = redis.call('HGET', base .. 'x', once)
  if seen then
    local before, after, size = string.match(seen, '^(%S+) (%S+) (%S+)$')
    return {'ok', before, after, size, ''}
  end
end
local m = manifest()
local is = m.n == 0 and '-' or m.e .. ':' .. text(m.n)
if token ~= '' and redis.call('HGET', base .. 'l', 't') ~= token then return {'token'} end
if expected ~= '' and expected ~= is then return {'version', is} end
if m.n == 0 and size_text == '' and not append then return {'missing'} end

local size = m.s
if append then
  for j = 12, #ARGV do size = size + #ARGV[j] end
elseif size_text ~= '' then
  size = tonumber(size_text)
end
local count = #ops / 20
if count > 0 then
  local i, offset, length = struct.unpack('<I4I4I4', ops, #ops - 19)
  if i * CHUNK + offset + length > size then return {'size', text(size)} end
end
if size > SIZE_MAX then return {'size', text(size)} end
if m.n == 0 and not may_make then return {'make'} end
if staged ~= '' then
  local seen, last = {}, nil
  for j = 0, count - 1 do
    local i, _, _, kind = struct.unpack('<I4I4I4I4', ops, j * 20 + 1)
    if kind >= 2 and i ~= last then seen[#seen + 1] = base .. 't:' .. staged .. ':' .. text(i) end
    last = i
  end
  for first = 1, #seen, 1000 do
    local last_one = math.min(first + 999, #seen)
    if redis.call('EXISTS', unpack(seen, first, last_one)) ~= last_one - first + 1 then return {'staged'} end
  end
end

local codes = {i32 = {'i4', 4}, i64 = {'i8', 8}, f32 = {'f', 4}, f64 = {'d', 8}}
local function merged(old, new)
  local code, width = unpack(codes[element])
  if #old < #new then old = old .. string.rep('\0', #new - #old) end
  local out = {}
  for at = 1, #new, 256 * width do
    local n = math.min(256, (#new - at + 1) / width)
    if element == 'i64' then
      -- Beyond what a double holds: in halves.
      local half = string.rep(merge == 'sum' and 'I4I4' or 'I4i4', n)
      local a = {struct.unpack('<' .. half, old, at)}
      local b = {struct.unpack('<' .. half, new, at)}
      for j = 1, n * 2, 2 do
        if merge == 'sum' then
          local low = a[j] + b[j]
          local carry = low >= 4294967296 and 1 or 0
          a[j] = low - carry * 4294967296
          a[j + 1] = (a[j + 1] + b[j + 1] + carry) % 4294967296
        else
          local less = b[j + 1] < a[j + 1] or (b[j + 1] == a[j + 1] and b[j] < a[j])
          if less == (merge == 'min') then a[j], a[j + 1] = b[j], b[j + 1] end
        end
      end
      out[#out + 1] = struct.pack('<' .. half, unpack(a, 1, n * 2))
    else
      local format = '<' .. string.rep(merge == 'sum' and element == 'i32' and 'I4' or code, n)
      local a = {struct.unpack(format, old, at)}
      local b = {struct.unpack(format, new, at)}
      for j = 1, n do
        local x, y = a[j], b[j]
        if merge == 'sum' then
          a[j] = x + y
          if element == 'i32' then a[j] = a[j] % 4294967296 end
        elseif x ~= x or (merge == 'min' and y < x) or (merge == 'max' and y > x) then
          a[j] = y
        end
      end
      out[#out + 1] = struct.pack(format, unpack(a, 1, n))
    end
  end
  return table.concat(out)
end
local function bytes_of(i, length, kind, from)
  if kind == 0 then return ARGV[12 + from] end
  if kind == 1 then return string.sub(small, from + 1, from + length) end
  return redis.call('GETRANGE', base .. 't:' .. staged .. ':' .. text(i), text(from), text(from + length - 1))
end
local function merged_bytes_of(i, offset, length, kind, from)
  local old = redis.call('GETRANGE', chunk_key(i), text(HEADER + offset), text(HEADER + offset + length - 1))
  return merged(old, bytes_of(i, length, kind, from))
end
local ready = {}  -- what merging gives, where the old bytes are cleared before it is put there
if merge ~= '' and replace then
  for j = 0, count - 1 do ready[j] = merged_bytes_of(struct.unpack('<I4I4I4I4I4', ops, j * 20 + 1)) end
end

local epoch = m.n == 0 and new_epoch or m.e
local number = m.n + 1
local stamp = struct.pack('<I8', number)
local live = m.n > 0 and pinned(m.e) or {}
local touched = {}  -- chunks kept and stamped: their length before
local zeros = m.z

local function cut(page)
  local out, entries = '', {}
  for p, n in string.gmatch(zeros, '(%d+):(%d+)') do
    if tonumber(p) < page then entries[#entries + 1] = {p, n} end
  end
  entries[#entries + 1] = {text(page), text(number)}
  -- Bounded: the two that reach furthest become one that says more than is true.
  if #entries > 16 then
    entries[16][2] = entries[17][2]
    entries[17] = nil
  end
  for _, entry in ipairs(entries) do out = out .. (out == '' and '' or ',') .. entry[1] .. ':' .. entry[2] end
  zeros = out
end
local function clear(i)
  local key = chunk_key(i)
  local length = redis.call('STRLEN', key)
  local kept = keep(m, i, length, live, 'RENAME')
  if length > 0 and not kept then redis.call('UNLINK', key) end
  touched[i] = 0
end
local function touch(i)
  if touched[i] then return end
  local length = redis.call('STRLEN', chunk_key(i))
  keep(m, i, length, live, 'COPY')
  touched[i] = length
end
local function write(i, offset, bytes)
  local key = chunk_key(i)
  local before = touched[i]
  touch(i)
  local now = redis.call('SETRANGE', key, text(HEADER + offset), bytes)
  local first = math.floor(offset / PAGE)
  local pages = math.floor((offset + #bytes - 1) / PAGE) - first + 1
  if not before or before == 0 then redis.call('SETRANGE', key, 0, stamp) end
  redis.call('SETRANGE', key, text(8 + first * 8), string.rep(stamp, pages))
  -- Strings that grow are given twice the room; a chunk that is full needs none.
  if touched[i] > 0 and touched[i] < now and now == HEADER + CHUNK then
    redis.call('COPY', key, base .. 't:full')
    redis.call('RENAME', base .. 't:full', key)
  end
  touched[i] = now
end

if replace then
  for i = 0, math.ceil(m.s / CHUNK) - 1 do clear(i) end
  if m.n > 0 then cut(0) end
elseif size < m.s then
  for i = math.ceil(size / CHUNK), math.ceil(m.s / CHUNK) - 1 do clear(i) end
  local rest = size % CHUNK
  if rest > 0 then
    local i = math.floor(size / CHUNK)
    touch(i)
    if touched[i] > HEADER + rest then
      redis.call('SET', chunk_key(i), redis.call('GETRANGE', chunk_key(i), 0, text(HEADER + rest - 1)))
      touched[i] = HEADER + rest
    end
    if touched[i] > 0 then redis.call('SETRANGE', chunk_key(i), 0, stamp) end
  end
  cut(math.floor(size / PAGE))
end
for j = 0, count - 1 do
  local i, offset, length, kind, from = struct.unpack('<I4I4I4I4I4', ops, j * 20 + 1)
  if kind == 3 then
    if not touched[i] then clear(i) end
    local key = base .. 't:' .. staged .. ':' .. text(i)
    redis.call('SETRANGE', key, 0, string.rep(stamp, math.ceil(length / PAGE) + 1))
    redis.call('RENAME', key, chunk_key(i))
    redis.call('PERSIST', chunk_key(i))
    touched[i] = HEADER + length
  elseif ready[j] then
    write(i, offset, ready[j])
  elseif merge ~= '' then
    write(i, offset, merged_bytes_of(i, offset, length, kind, from))
  else
    write(i, offset, bytes_of(i, length, kind, from))
  end
end
if staged ~= '' then
  local last
  for j = 0, count - 1 do
    local i, _, _, kind = struct.unpack('<I4I4I4I4', ops, j * 20 + 1)
    if kind == 2 and i ~= last then redis.call('UNLINK', base .. 't:' .. staged .. ':' .. text(i)) end
    last = i
  end
end
if append then
  local at = m.s
  for j = 12, #ARGV do
    local taken = 0
    while taken < #ARGV[j] do
      local offset = at % CHUNK
      local part = math.min(CHUNK - offset, #ARGV[j] - taken)
      write(math.floor(at / CHUNK), offset, string.sub(ARGV[j], taken + 1, taken + part))
      taken = taken + part
      at = at + part
    end
  end
end

redis.call('HSET', KEYS[1], 'e', epoch, 'n', text(number), 's', text(size), 'z', zeros)
local after = epoch .. ':' .. text(number)
if once ~= '' then
  redis.call('HSET', base .. 'x', once, is .. ' ' .. after .. ' ' .. text(size))
  if redis.call('RPUSH', base .. 'xl', once) > 4096 then
    redis.call('HDEL', base .. 'x', redis.call('LPOP', base .. 'xl'))
  end
  if m.n == 0 then
    redis.call('PERSIST', base .. 'x')
    redis.call('PERSIST', base .. 'xl')
  end
end
return {'ok', is, after, text(size), text(m.s)}
)lua";

// remove: ARGV 1 expected: '', EPOCH:NUMBER, or EPOCH: alone for any version of it; 2 for how long, in ms, named pushes
// are remembered. Gives {'ok', EPOCH:NUMBER}, {'version', is}, {'missing'}.
constexpr const char* kRemove = R"lua(
probe()
local m = manifest()
if m.n == 0 then return {'missing'} end
local is = m.e .. ':' .. text(m.n)
if ARGV[1] ~= '' and ARGV[1] ~= is and ARGV[1] ~= m.e .. ':' then return {'version', is} end
local live = pinned(m.e)
for i = 0, math.ceil(m.s / CHUNK) - 1 do
  local length = redis.call('STRLEN', chunk_key(i))
  if length > 0 and not keep(m, i, length, live, 'RENAME') then redis.call('UNLINK', chunk_key(i)) end
end
redis.call('DEL', KEYS[1])
redis.call('PEXPIRE', base .. 'x', ARGV[2])
redis.call('PEXPIRE', base .. 'xl', ARGV[2])
return {'ok', is}
)lua";

// pin: ARGV 1 id, 2 lease in ms, 3 how many there may be. Gives {'ok', epoch, number, size, zeroed}, {'missing'},
// {'many'}.
constexpr const char* kPin = R"lua(
probe()
local m = manifest()
if m.n == 0 then return {'missing'} end
local now, pins = now_ms(), base .. 'p'
redis.call('ZREMRANGEBYSCORE', pins, '-inf', '(' .. text(now))
if redis.call('ZCARD', pins) >= tonumber(ARGV[3]) then return {'many'} end
redis.call('ZADD', pins, text(now + tonumber(ARGV[2])), m.e .. ':' .. text(m.n) .. ':' .. ARGV[1])
redis.call('PEXPIRE', pins, KEEP_MS)
return {'ok', m.e, text(m.n), text(m.s), m.z}
)lua";

// renew_pin: ARGV 1 EPOCH:NUMBER:ID, 2 lease in ms. Gives {'ok'} or {'lost'}.
constexpr const char* kRenewPin = R"lua(
probe()
if not version_of(manifest(), ARGV[1]) then
  redis.call('ZREM', base .. 'p', ARGV[1])
  return {'lost'}
end
redis.call('ZADD', base .. 'p', text(now_ms() + tonumber(ARGV[2])), ARGV[1])
redis.call('PEXPIRE', base .. 'p', KEEP_MS)
if redis.call('PEXPIRE', base .. 'k', KEEP_MS) == 1 then
  each_copy(function(key) redis.call('PEXPIRE', key, KEEP_MS) end)
end
return {'ok'}
)lua";

// unpin: ARGV 1 EPOCH:NUMBER:ID.
constexpr const char* kUnpin = R"lua(
probe()
redis.call('ZREM', base .. 'p', ARGV[1])
redis.call('ZREMRANGEBYSCORE', base .. 'p', '-inf', '(' .. text(now_ms()))
if redis.call('ZCARD', base .. 'p') == 0 then
  each_copy(function(key) redis.call('UNLINK', key) end)
  redis.call('DEL', base .. 'k')
end
return {'ok'}
)lua";

// locate: ARGV 1 EPOCH:NUMBER:ID, 2 chunks, u32 each. Gives {'ok', place...}: '' in its place, 'z' zeros, or the key
// where it is kept; {'lost'}.
constexpr const char* kLocate = R"lua(
probe()
local m = manifest()
local epoch, number = version_of(m, ARGV[1])
if not epoch then return {'lost'} end
local out = {'ok'}
for at = 1, #ARGV[2], 4 do
  local i = struct.unpack('<I4', ARGV[2], at)
  local place = place_of(m, epoch, number, i)
  if not place then return {'lost'} end
  out[#out + 1] = place == chunk_key(i) and '' or place
end
return out
)lua";

// changed: ARGV 1 EPOCH:NUMBER:ID, 2 since, 3 what was cut off or cleared up to that version, 4 chunks, u32 each. Gives
// {'ok', two u32 for each chunk} or {'lost'}.
constexpr const char* kChanged = R"lua(
probe()
local m = manifest()
local epoch, number = version_of(m, ARGV[1])
if not epoch then return {'lost'} end
local since, z = tonumber(ARGV[2]), ARGV[3]
-- The first page from which on all were cut off or cleared since.
local cleared = math.huge
for p, n in string.gmatch(z, '(%d+):(%d+)') do
  if tonumber(n) > since then cleared = math.min(cleared, tonumber(p)) end
end
local format = '<' .. string.rep('I8', PAGES)
local out = {}
for at = 1, #ARGV[4], 4 do
  local i = struct.unpack('<I4', ARGV[4], at)
  local place = place_of(m, epoch, number, i)
  if not place then return {'lost'} end
  local low, high = 0, 0
  local pages
  if place ~= 'z' then
    local head = redis.call('GETRANGE', place, 0, 7)
    if head ~= '' and u64(head, 1) > since then
      pages = {struct.unpack(format, redis.call('GETRANGE', place, 8, HEADER - 1), 1)}
    end
  end
  if pages or cleared <= i * PAGES + PAGES - 1 then
    for page = 0, PAGES - 1 do
      if (pages and pages[page + 1] > since) or i * PAGES + page >= cleared then
        if page < 32 then low = low + 2 ^ page else high = high + 2 ^ (page - 32) end
      end
    end
  end
  out[#out + 1] = struct.pack('<I4I4', low, high)
end
return {'ok', table.concat(out)}
)lua";

constexpr const char* kLockPrelude = R"lua(
local lock = base .. 'l'
local now = now_ms()
local l = {}
local readers = {}
do
  local all = redis.call('HGETALL', lock)
  for at = 1, #all, 2 do
    local owner = string.match(all[at], '^r:(.*)$')
    if owner then readers[owner] = tonumber(all[at + 1]) else l[all[at]] = all[at + 1] end
  end
end
-- A token is never smaller than the time in us: it grows also where the record was lost.
local function raise_token()
  l.t = text(math.max(tonumber(l.t or 0) + 1, now * 1000))
  redis.call('HSET', lock, 't', l.t)
end
-- Ends leases that ran out; what a writer pushes who lost it is refused from here on. The record stays for LIFE_MS
-- after the last lease: so long a token says whether it is stale.
local LIFE_MS = 86400000
local function settle()
  if l.w and tonumber(l.we) < now then
    redis.call('HDEL', lock, 'w', 'wt', 'we')
    redis.call('HSET', lock, 'p', '1')
    l.w, l.p = nil, '1'
    raise_token()
  end
  for owner, lease_end in pairs(readers) do
    if lease_end < now then
      redis.call('HDEL', lock, 'r:' .. owner)
      readers[owner] = nil
    end
  end
end
local function live(lease) redis.call('PEXPIRE', lock, text(LIFE_MS + lease)) end
)lua";

// lock: ARGV 1 owner, 2 w or r, 3 lease in ms, 4 how many readers there may be. Gives {'ok', token, poisoned},
// {'held'}, {'many'}.
constexpr const char* kLock = R"lua(
probe()
-- PRELUDE
local owner, lease = ARGV[1], tonumber(ARGV[3])
settle()
if l.w and (l.w ~= owner or ARGV[2] ~= 'w') then return {'held'} end
if ARGV[2] == 'w' then
  if next(readers) then return {'held'} end
  if not l.w then
    raise_token()
    redis.call('HSET', lock, 'w', owner, 'wt', l.t)
  end
  redis.call('HSET', lock, 'we', text(now + lease))
  live(lease)
  return {'ok', l.t, l.p or '0'}
end
local count = 0
for _ in pairs(readers) do count = count + 1 end
if not readers[owner] and count >= tonumber(ARGV[4]) then return {'many'} end
if not l.t then raise_token() end
redis.call('HSET', lock, 'r:' .. owner, text(now + lease))
live(lease)
return {'ok', l.t, l.p or '0'}
)lua";

// renew_lock: ARGV 1 owner, 2 lease in ms. Gives {'ok'} or {'lost'}.
constexpr const char* kRenewLock = R"lua(
probe()
-- PRELUDE
local owner, lease = ARGV[1], tonumber(ARGV[2])
settle()
if l.w ~= owner and not readers[owner] then return {'lost'} end
if l.w == owner then redis.call('HSET', lock, 'we', text(now + lease)) end
if readers[owner] then redis.call('HSET', lock, 'r:' .. owner, text(now + lease)) end
live(lease)
return {'ok'}
)lua";

// unlock: ARGV 1 owner. Gives {'ok'} or {'lost'}.
constexpr const char* kUnlock = R"lua(
probe()
-- PRELUDE
local owner = ARGV[1]
settle()
if l.w ~= owner and not readers[owner] then return {'lost'} end
if l.w == owner then redis.call('HDEL', lock, 'w', 'wt', 'we', 'p') end
redis.call('HDEL', lock, 'r:' .. owner)
live(0)
return {'ok'}
)lua";

// index_set: ARGV 1 key, 2 epoch, 3 number, 4 size. What is known of a later version stays.
constexpr const char* kIndexSet = R"lua(
probe()
local key, epoch, number, size = unpack(ARGV)
local old_size = 0
local old = redis.call('HGET', base .. 's', key)
if old then
  local e, n, s = string.match(old, '^(%x+):(%d+):(%d+):')
  if e == epoch and tonumber(n) > tonumber(number) then return {'ok'} end
  old_size = tonumber(s)
end
redis.call('ZADD', KEYS[1], 0, key)
redis.call('HSET', base .. 's', key, epoch .. ':' .. number .. ':' .. size .. ':' .. text(now_ms()))
redis.call('INCRBY', base .. 'b', text(tonumber(size) - old_size))
return {'ok'}
)lua";

// index_remove: ARGV 1 key, 2 epoch, 3 how old, in ms, what is known must be. Removes the key where it is of that
// epoch.
constexpr const char* kIndexRemove = R"lua(
probe()
local key, epoch, age = unpack(ARGV)
local old = redis.call('HGET', base .. 's', key)
if not old then
  if epoch == '' then redis.call('ZREM', KEYS[1], key) end
  return {'ok'}
end
local e, s, ms = string.match(old, '^(%x+):%d+:(%d+):(%d+)$')
if e ~= epoch or now_ms() - tonumber(ms) < tonumber(age) then return {'ok'} end
redis.call('ZREM', KEYS[1], key)
redis.call('HDEL', base .. 's', key)
redis.call('DECRBY', base .. 'b', s)
if redis.call('EXISTS', base .. 's') == 0 then redis.call('DEL', base .. 'b') end
return {'ok'}
)lua";

std::string sha1_hex(const std::string& text) {
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha1(), nullptr);
  return to_hex({digest, size});
}

}  // namespace

RedisScript::RedisScript(const char* body, bool of_value) : text(kPrelude) {
  if (of_value) text += kValuePrelude;
  text += body;
  constexpr std::string_view kMark = "-- PRELUDE\n";
  if (const size_t at = text.find(kMark); at != std::string::npos) text.replace(at, kMark.size(), kLockPrelude);
  sha1 = sha1_hex(text);
}

const RedisScripts& RedisScripts::get() {
  static const RedisScripts scripts{
      .push = RedisScript(kPush),
      .remove = RedisScript(kRemove),
      .pin = RedisScript(kPin),
      .renew_pin = RedisScript(kRenewPin),
      .unpin = RedisScript(kUnpin),
      .locate = RedisScript(kLocate),
      .changed = RedisScript(kChanged),
      .lock = RedisScript(kLock, false),
      .renew_lock = RedisScript(kRenewLock, false),
      .unlock = RedisScript(kUnlock, false),
      .index_set = RedisScript(kIndexSet, false),
      .index_remove = RedisScript(kIndexRemove, false),
  };
  return scripts;
}

}  // namespace spore::state

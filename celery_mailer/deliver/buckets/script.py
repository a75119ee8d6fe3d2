"""``rules`` in Lua, as the one script that ``redis`` runs: what it reads and writes is one step for the
server.

A rate is a hash of the fields of ``rules.State``, a quota a hash of units by hour, and leases are a sorted
set. Each key goes away by itself when it is the same as a fresh one.
"""

from celery_mailer.deliver.buckets import rules

_CONSTANTS = ("HOUR", "KEPT", "RECOVERY", "FLOOR", "ONE_COMPLAINT", "UNLIMITED")

_STEPS = r"""
local step, now = ARGV[1], tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local max, min = math.max, math.min

local function text(number) return string.format('%.0f', number) end

local function keep(key, until_)
  redis.call('PEXPIRE', key, text(max(0, math.ceil((until_ - now) / 1000)) + 1000))
end

local function load(key)
  local v = redis.call('HMGET', key, 'tat', 'line', 'owner', 'pace', 'slowed_at')
  local state = {key = key, tat = tonumber(v[1]) or 0, line = tonumber(v[2]) or 0, owner = v[3] or '',
                 pace = tonumber(v[4]) or 1, slowed_at = tonumber(v[5]) or 0}
  state.pace_now = min(1, state.pace + (now - state.slowed_at) / RECOVERY)
  return state
end

local function save(state)
  redis.call('HSET', state.key, 'tat', text(state.tat), 'line', text(state.line), 'owner', state.owner,
             'pace', string.format('%.17g', state.pace), 'slowed_at', text(state.slowed_at))
  keep(state.key, max(state.tat, state.line, state.slowed_at > 0 and state.slowed_at + RECOVERY or 0))
end

-- A bucket without a quota, during one call.

local Rate = {}
Rate.__index = Rate

function Rate.open(key, spec)
  local state = load(key)
  local self = {state = state, interval = spec[1], tolerance = spec[2], bookable = spec[4], behind = now}
  if state.pace_now < 1 then
    local base = self.interval > 0 and self.interval or UNLIMITED
    self.interval, self.tolerance = math.ceil(base / state.pace_now), 0
  end
  return setmetatable(self, Rate)
end

function Rate:free(units) return max(now, self.state.tat - self.tolerance) end

function Rate:place(units, in_line)
  return max(self:free(units), self.behind, in_line and self.state.line or 0)
end

function Rate:spend(units, at, token)
  if self.interval > 0 then
    self.state.tat, self.state.owner = max(self.state.tat, at) + units * self.interval, token
    self.changed = true
  end
end

function Rate:wait(units, at, in_line)
  self.behind = at + units * self.interval
  if in_line and self.interval > 0 then
    self.state.line, self.changed = self.behind, true
  end
end

function Rate:close() if self.changed then save(self.state) end end

-- A bucket with a quota, during one call.

local Quota = {}
Quota.__index = Quota

function Quota.open(key, spec)
  local self = {key = key, quota = spec[3], bookable = spec[4], hours = {}, units = {}, behind = 0}
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local hour = tonumber(fields[i])
    if hour * HOUR + KEPT > now then
      table.insert(self.hours, hour)
      self.units[hour] = tonumber(fields[i + 1])
    else
      redis.call('HDEL', key, fields[i])
    end
  end
  table.sort(self.hours)
  return setmetatable(self, Quota)
end

function Quota:place(units)
  local room = self.quota - min(units + self.behind, self.quota)
  local used, at = 0, now
  for _, hour in ipairs(self.hours) do used = used + self.units[hour] end
  for _, hour in ipairs(self.hours) do
    if used <= room then break end
    used, at = used - self.units[hour], hour * HOUR + KEPT
  end
  return at
end

function Quota:free(units)
  local behind = self.behind
  self.behind = 0
  local at = self:place(units)
  self.behind = behind
  return at
end

function Quota:spend(units, at)
  local hour = math.floor(at / HOUR)
  if not self.units[hour] then
    table.insert(self.hours, hour)
    self.units[hour] = 0
  end
  self.units[hour] = self.units[hour] + units
  self.changed = true
end

function Quota:wait(units) self.behind = self.behind + units end

function Quota:close()
  if not self.changed then return end
  local last = self.hours[#self.hours]
  for hour, units in pairs(self.units) do redis.call('HSET', self.key, text(hour), text(units)) end
  keep(self.key, last * HOUR + KEPT)
end

local steps = {}

function steps.take(request)
  local opened, reply = {}, {now}
  for i, spec in ipairs(request.buckets) do
    opened[i] = (spec[3] > 0 and Quota or Rate).open(KEYS[i], spec)
  end
  for _, ask in ipairs(request.asks) do
    local booked, others = now, now
    for i = 1, #ask, 2 do
      local bucket = opened[ask[i]]
      local free = bucket:free(ask[i + 1])
      if bucket.bookable then booked = max(booked, free) else others = max(others, free) end
    end
    local turn, at, by = 0, booked, 0
    if others <= booked and booked <= now + request.within then
      for i = 1, #ask, 2 do opened[ask[i]]:spend(ask[i + 1], at, request.token) end
    else
      turn, at = 1, 0
      for i = 1, #ask, 2 do at = max(at, opened[ask[i]]:place(ask[i + 1])) end
      if at > now + request.patience then
        turn = 2
        for i = 1, #ask, 2 do at = max(at, opened[ask[i]]:place(ask[i + 1], true)) end
      end
      local narrowest = {}
      for i = 1, #ask, 2 do
        if opened[ask[i]]:place(ask[i + 1], turn == 2) == at then table.insert(narrowest, i) end
      end
      for _, i in ipairs(narrowest) do opened[ask[i]]:wait(ask[i + 1], at, turn == 2) end
      by = ask[narrowest[1]]
    end
    table.insert(reply, turn)
    table.insert(reply, at)
    table.insert(reply, by)
  end
  for _, bucket in ipairs(opened) do bucket:close() end
  return reply
end

function steps.give_back(request)
  for _, spent in ipairs(request.spent) do
    for i = 2, #spent, 2 do
      local key, spec, units = KEYS[spent[i]], request.buckets[spent[i]], spent[i + 1]
      if spec[3] > 0 then
        local hour = text(math.floor(spent[1] / HOUR))
        local used = tonumber(redis.call('HGET', key, hour) or 0)
        if used > 0 then redis.call('HSET', key, hour, text(max(0, used - units))) end
      else
        local state = load(key)
        if state.owner == request.token and state.pace_now >= 1 then
          state.tat = state.tat - units * spec[1]
          save(state)
        end
      end
    end
  end
end

function steps.hold(request)
  local state = load(KEYS[1])
  state.tat = max(state.tat, now + request.duration)
  save(state)
end

function steps.slow_down()
  local state = load(KEYS[1])
  if now - state.slowed_at >= ONE_COMPLAINT then
    state.pace, state.slowed_at = max(FLOOR, state.pace_now / 2), now
    save(state)
  end
end

function steps.connect(request)
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now))
  local known = redis.call('ZSCORE', KEYS[1], request.token)
  if not known and redis.call('ZCARD', KEYS[1]) >= request.size then return 0 end
  redis.call('ZADD', KEYS[1], text(now + request.lease), request.token)
  redis.call('PEXPIRE', KEYS[1], text(request.lease / 1000 + 1000))
  return 1
end

function steps.look()
  local reply = {text(now)}
  for _, key in ipairs(KEYS) do
    local kind = redis.call('TYPE', key).ok
    local ask = kind == 'zset' and {'ZRANGE', key, 0, -1, 'WITHSCORES'} or {'HGETALL', key}
    table.insert(reply, {kind, unpack(redis.call(unpack(ask)))})
  end
  return reply
end

function steps.release(request) redis.call('ZREM', KEYS[1], request.token) end

return steps[step](cjson.decode(ARGV[3]))
"""

LUA = "".join(f"local {name} = {getattr(rules, name)!r}\n" for name in _CONSTANTS) + _STEPS

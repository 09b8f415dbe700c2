-- Posts batches of 100 events, each with an id that no other has, and counts what is acknowledged.
--
-- Arguments: a file, the JSON of an event a line, without its brace and its id; what ids begin with. Past the last line it begins anew.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
local report = dofile(here .. "wrk_report.lua")
local names = {"accepted", "batches", "refused"}
local batch = 100
local threads = {}
local events = {}
local headers = {["Content-Type"] = "application/json"}
local number = 0
local prefix

function setup(thread)
   table.insert(threads, thread)
end

function init(args)
   for event in io.lines(args[1]) do
      table.insert(events, event)
   end
   prefix = '{"event_id":"' .. args[2] .. "-"
   for _, name in ipairs(names) do
      _G[name] = 0
   end
end

function request()
   local made = {}
   for i = 1, batch do
      made[i] = prefix .. number .. '",' .. events[number % #events + 1]
      number = number + 1
   end
   return wrk.format("POST", nil, headers, "[" .. table.concat(made, ",") .. "]")
end

function response(status, _, body)
   if status ~= 202 then
      return -- wrk counts it among its errors
   end
   local taken = tonumber(body:match('"accepted":(%d+)'))
   accepted = accepted + taken
   batches = batches + 1
   refused = refused + batch - taken
end

function done(summary, latency)
   report(summary, latency, threads, names)
end

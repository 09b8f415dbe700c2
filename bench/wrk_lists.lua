-- Asks for random ones of the paths in a file, and counts the answers by their source.
--
-- Arguments: the file, a path a line; the seed.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
local report = dofile(here .. "wrk_report.lua")
local names = {"owner", "trending", "session", "replica", "other"}
local threads = {}
local requests = {}

function setup(thread)
   table.insert(threads, thread)
end

function init(args)
   for path in io.lines(args[1]) do
      table.insert(requests, wrk.format("GET", path))
   end
   math.randomseed(tonumber(args[2]))
   for _, name in ipairs(names) do
      _G[name] = 0
   end
end

function request()
   return requests[math.random(#requests)]
end

function response(status, headers, body)
   if status ~= 200 then
      return -- wrk counts it among its errors
   end
   local source = body:match('"source":"(%a+)"')
   if source == nil or _G[source] == nil then
      source = "other"
   end
   _G[source] = _G[source] + 1
end

function done(summary, latency)
   report(summary, latency, threads, names)
end

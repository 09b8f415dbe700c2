-- What a run of wrk has measured, as one line of JSON on stdout.
--
-- Gives a function for a script's `done`: what wrk hands to that, the threads that `setup` saw, and the names of the global numbers
-- that each of them counted. `latencies` are pairs, in microseconds and how often: wrk's own, corrected for coordinated omission.
return function(summary, latency, threads, names)
   local counts = {}
   for i, name in ipairs(names) do
      local sum = 0
      for _, thread in ipairs(threads) do
         sum = sum + thread:get(name)
      end
      counts[i] = string.format('"%s":%d', name, sum)
   end
   local latencies = {}
   for i = 1, #latency do
      latencies[i] = string.format("[%d,%d]", latency(i))
   end
   local errors = summary.errors
   io.write(string.format(
      '{"requests":%d,"duration_us":%d,"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d},' ..
      '"counts":{%s},"latencies":[%s]}\n',
      summary.requests, summary.duration, errors.connect, errors.read, errors.write, errors.status, errors.timeout,
      table.concat(counts, ","), table.concat(latencies, ",")))
end

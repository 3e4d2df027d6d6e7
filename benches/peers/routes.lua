-- Asks for every line of a file, `host path`, in an order without locality.
local requests, at = {}, 0

init = function()
  for line in io.lines("@PATHS@") do
    local host, path = line:match("(%S+) (%S+)")
    requests[#requests + 1] = wrk.format("GET", path, { Host = host })
  end
end

request = function()
  at = (at + 7919) % #requests -- a prime, so that all get their turn
  return requests[at + 1]
end

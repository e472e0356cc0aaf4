-- A small GET with five usual fields. 1,000 paths and 997 cookies (coprime): no head comes twice within 997,000.
-- Arguments: "close" asks for a connection per request; "host=A" names another authority than app.example, and
-- "proxied=A" writes it into the target as well, as an explicit proxy is asked. "pause=M" waits between two requests of
-- a connection, M milliseconds on the average, and never the same, so that connections do not fall into step.
require("report")
local tail, target, host, count = "\r\n\r\n", "", "app.example", 0

function init(args)
  for _, argument in ipairs(args) do
    if argument == "close" then tail = "\r\nConnection: close\r\n\r\n" end
    host = argument:match("^host=(.+)$") or argument:match("^proxied=(.+)$") or host
    local pause = tonumber(argument:match("^pause=(.+)$"))
    if pause then delay = function() return math.random(0, 2 * pause) end end
    if argument:match("^proxied=") then target = "http://" .. host end
  end
end

function request()
  count = count + 1
  return "GET " .. target .. "/catalogue/items/" .. count % 1000 .. "?page=2 HTTP/1.1\r\nHost: " .. host .. "\r\n" ..
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" ..
    "Accept: application/json, text/plain, */*\r\nAccept-Encoding: gzip, deflate, br\r\n" ..
    "Cookie: session=0f3c9a7e5b" .. count % 997 .. tail
end

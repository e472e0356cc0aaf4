-- A small GET with five usual fields. 1,000 paths and 997 cookies (coprime): no head comes twice within 997,000.
-- "close" as an argument asks for a connection per request.
require("report")
local tail, count = "\r\n\r\n", 0

function init(args)
  if args[1] == "close" then tail = "\r\nConnection: close\r\n\r\n" end
end

function request()
  count = count + 1
  return "GET /catalogue/items/" .. count % 1000 .. "?page=2 HTTP/1.1\r\nHost: app.example\r\n" ..
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" ..
    "Accept: application/json, text/plain, */*\r\nAccept-Encoding: gzip, deflate, br\r\n" ..
    "Cookie: session=0f3c9a7e5b" .. count % 997 .. tail
end

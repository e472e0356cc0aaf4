-- In turn a GET whose answer comes in chunks (8 KiB) and a POST of 64 KiB; 20 fields each, paths and a field vary.
require("report")
local fields = table.concat({
  "Host: app.example",
  "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
  "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
  "Accept-Encoding: gzip, deflate, br",
  "Referer: http://app.example/catalogue?page=2&sort=price",
  "Origin: http://app.example",
  "DNT: 1",
  "Sec-Fetch-Dest: document",
  "Sec-Fetch-Mode: navigate",
  "Sec-Fetch-Site: same-origin",
  "Sec-Fetch-User: ?1",
  "Priority: u=0, i",
  "Cache-Control: no-cache",
  "Pragma: no-cache",
  "X-Requested-With: XMLHttpRequest",
  "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
  "Authorization: Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImF1ZCI6ImFwcCJ9.c2lnbmF0dXJl",
}, "\r\n") .. "\r\nCookie: theme=dark; session=0f3c9a7e5b"
local body = string.rep("0123456789abcdef", 4096)
local count = 0

function request()
  count = count + 1
  if count % 2 == 0 then
    return "GET /mix/get/" .. count % 1000 .. " HTTP/1.1\r\n" .. fields .. count % 997 ..
      "\r\nIf-None-Match: \"none\"\r\n\r\n"
  end
  return "POST /mix/post/" .. count % 1000 .. " HTTP/1.1\r\n" .. fields .. count % 997 ..
    "\r\nContent-Length: 65536\r\n\r\n" .. body
end

# The app of the tests behind real fronts, for Puma; that for gunicorn does the same.
#
# A request for /ID/MS/TIMES is written to the file EXECUTED before anything else is
# done, takes so many milliseconds, and is answered with TIMES lines that say what was
# asked, and the body that came.

# One write at the end of the file for each request, whoever else writes there.
EXECUTED = File.open(ENV.fetch("EXECUTED"), File::WRONLY | File::APPEND | File::CREAT)

run(lambda do |env|
  method = env["REQUEST_METHOD"]
  id, wait, times = env["PATH_INFO"].delete_prefix("/").split("/")
  body = env["rack.input"].read.to_s
  EXECUTED.syswrite("#{method} #{id}\n")
  sleep(wait.to_i / 1000.0)
  answer = ("#{method} #{id}\n" * times.to_i).b + body.b
  fields = { "content-type" => "text/plain", "content-length" => answer.bytesize.to_s }
  [200, fields, [answer]]
end)

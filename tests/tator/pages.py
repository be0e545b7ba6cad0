"""Pages that a stand-in Tator server gives where no answer of the API's own comes: those of Django, gunicorn, nginx."""

SERVER_ERROR = (
    "<html>\n  <head>\n    <title>Internal Server Error</title>\n  </head>\n  <body>\n"
    "    <h1><p>Internal Server Error</p></h1>\n    \n  </body>\n</html>\n"
)
NOT_FOUND = (  # without the scripts of the web site
    "<html>\n  <head>\n    <title>Not Found</title>\n  </head>\n  <body>\n    <h1>Not Found</h1>\n  </body>\n</html>\n"
)
LONG = (
    "<html>\n  <head>\n    <title>Bad Request</title>\n  </head>\n  <body>\n    <h1><p>Bad Request</p></h1>\n"
    "    Request Line is too large ({} &gt; 4094)\n  </body>\n</html>\n"
)
NGINX_LONG = (
    "<html>\r\n<head><title>414 Request-URI Too Large</title></head>\r\n<body>\r\n"
    "<center><h1>414 Request-URI Too Large</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n"
)
BAD_HOST = (
    '\n<!doctype html>\n<html lang="en">\n<head>\n  <title>Bad Request (400)</title>\n</head>\n<body>\n'
    "  <h1>Bad Request (400)</h1><p></p>\n</body>\n</html>\n"
)

"""Pages that a stand-in Tator server gives where no answer of the API's own comes: those of Django, gunicorn, nginx."""

SERVER_ERROR = (
    "<html>\n  <head>\n    <title>Internal Server Error</title>\n  </head>\n  <body>\n"
    "    <h1><p>Internal Server Error</p></h1>\n    \n  </body>\n</html>\n"
)
_ASSETS = "/static/dfa5a45c8fd54e336e9de3d534f2bc684df9ce3a"
NOT_FOUND = (
    '\n\n<html lang="en">\n    <head>\n        <title>Not Found</title>\n        <meta charset="UTF-8" />\n'
    f'        <link rel="stylesheet" type="text/css" href={_ASSETS}/components.css />\n'
    f"        <script src={_ASSETS}/components.js></script>\n        <script src={_ASSETS}/util.js></script>\n"
    "        <script>\n            const KEYCLOAK_ENABLED = false;\n"
    "            tatorUi.util.Utilities.errorPageFunction( 404 );\n        </script>\n    </head>\n    <body>\n"
    '        <h1 class="h1">Not Found</h1>\n    </body>\n</html>\n'
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

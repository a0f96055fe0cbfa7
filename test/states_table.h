enum { WALKED = 0 };
#define NO_LINE "- there is no line yet"
#define NOT_STUCK "- nothing waits to be written"
#define NO_HANDLE "- on_request has not been asked, so there is no handle"
static const char *const table[STATES][EVENTS] = {
    [RESOLVING] = {"", "", NO_LINE, NO_LINE, "", NO_LINE, "","","","","",""},
    [CONNECTING] = {"", "", NO_LINE, NO_LINE, "", NO_LINE, "","","","","",""},
    [PROXIED] = {"", "", "", "", "", NOT_STUCK, NO_HANDLE, NO_HANDLE,NO_HANDLE,NO_HANDLE,"",""},
    [READING] = {"", "", "", "", "", NOT_STUCK, NO_HANDLE, NO_HANDLE,NO_HANDLE,NO_HANDLE,"",""},
    [THINKING] = {"", "", "", "", "", NOT_STUCK, "","","","","",""},
    [ASKING] = {"", "", "", "", "", NOT_STUCK, "","","","","",""},
    [GREETING] = {"", "", "", "", "", NOT_STUCK, "","","","","",""},
    [LIVE] = {"", "", "", "", "", NOT_STUCK, "","","","","",""},
    [LIVE_CLIENT] = {"", "", "", "", "", NOT_STUCK, "","","","","",""},
    [FAREWELL] = {"", "", "", "", "", NOT_STUCK, "","","","","",""},
    [FAREWELL_CLIENT] = {"", "", "", "", "", NOT_STUCK, "","","","","",""},
    [FINISHING] = {"", "", "", "", "", "", "","","","","",""},
    [FINISHING_CLIENT] = {"", "", "", "", "", "", "","","","","",""},
    [DRAINING] = {"", "", "", "", "", NOT_STUCK, "","","","","",""},
    [DRAINING_CLIENT] = {"", "", "", "", "", NOT_STUCK, "","","","","",""},
};

%% SPDX-License-Identifier: Apache-2.0
%% Adopted sockets under real programs: an HTTP responder under wrk, and a conversation with redis-server.
-module(tokamak_adopt_programs_tests).

-include_lib("eunit/include/eunit.hrl").

programs_test_() ->
    tokamak_test:with_application([
        with("wrk", "an HTTP responder on adopted sockets answers wrk without an error", fun http/0),
        with("redis-server", "redis-server answers 20,000 pipelined commands over an adopted socket", fun redis/0)
    ]).

with(Program, Title, Test) ->
    tokamak_test:with_program(Program, tokamak_test:cases([{Title, Test}])).

http() ->
    {Port, Responder} = tokamak_http:start(2),
    Url = "http://127.0.0.1:" ++ integer_to_list(Port) ++ "/",
    {ok, #{status := 0, stdout := Report}} =
        tokamak_subprocess:run(["wrk", "-t2", "-c64", "-d3s", "--latency", Url], #{timeout => 30000}),
    ok = tokamak_http:stop(Responder),
    io:format(user, "~s", [Report]),
    ?assertEqual(nomatch, re:run(Report, "Socket errors|Non-2xx")),
    {match, [Rate]} = re:run(Report, "Requests/sec:\\s+([0-9.]+)", [{capture, all_but_first, list}]),
    ?assert(list_to_float(Rate) > 1000.0).

redis() ->
    {Port, Server} = start_redis(),
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {nodelay, true}]),
    {ok, Loop} = tokamak_loop:new(),
    ok = tokamak_loop:adopt(Loop, Socket, 1),
    ok = gen_tcp:send(Socket, [["SET k", integer_to_list(N), " v", integer_to_list(N), "\r\n"] || N <- lists:seq(1, 10000)]),
    ?assertEqual(binary:copy(<<"+OK\r\n">>, 10000), replies(Loop, 50000, <<>>)),
    Expected = iolist_to_binary([["$", integer_to_list(length(V)), "\r\n", V, "\r\n"] || N <- lists:seq(1, 10000), V <- ["v" ++ integer_to_list(N)]]),
    ok = gen_tcp:send(Socket, [["GET k", integer_to_list(N), "\r\n"] || N <- lists:seq(1, 10000)]),
    ?assertEqual(Expected, replies(Loop, byte_size(Expected), <<>>)),
    ok = gen_tcp:send(Socket, "QUIT\r\n"),
    ?assertEqual([<<"+OK\r\n">>, closed], until_closed(Loop)),
    ok = tokamak_subprocess:stop(Server),
    ok = tokamak_loop:destroy(Loop).

replies(_Loop, Bytes, Replies) when byte_size(Replies) >= Bytes ->
    Replies;
replies(Loop, Bytes, Replies) ->
    [_ | _] = Events = tokamak_loop:poll(Loop, 5000),
    replies(Loop, Bytes, iolist_to_binary([Replies, [Data || {1, socket_data, Data} <- Events]])).

%% What comes before the end, and the end; both may come at once.
until_closed(Loop) ->
    [_ | _] = Events = tokamak_loop:poll(Loop, 5000),
    case lists:reverse(Events) of
        [{1, socket_closed, undefined} | Before] ->
            [Data || {1, socket_data, Data} <- lists:reverse(Before)] ++ [closed];
        _ ->
            [Data || {1, socket_data, Data} <- Events] ++ until_closed(Loop)
    end.

%% On a port that was free a moment ago.
start_redis() ->
    {ok, Listener} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    ok = gen_tcp:close(Listener),
    Arguments = ["--port", integer_to_list(Port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
    {ok, Server} = tokamak_subprocess:start(["redis-server" | Arguments]),
    ok = ready(Server, <<>>),
    {Port, Server}.

ready(Server, Before) ->
    {ok, {stdout, Bin}} = tokamak_subprocess:recv(Server, 10000),
    Log = <<Before/binary, Bin/binary>>,
    case binary:match(Log, <<"eady to accept connections">>) of
        nomatch -> ready(Server, Log);
        _ -> ok
    end.

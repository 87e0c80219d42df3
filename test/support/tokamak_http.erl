%% SPDX-License-Identifier: Apache-2.0
%% A small HTTP responder: every connection is adopted by one of a few loops, whose worker polls it.
-module(tokamak_http).

-export([start/1, stop/1]).

-define(BODY, "hello").

%% The port it listens on, and what stop/1 takes.
start(Workers) ->
    {ok, Listener} = gen_tcp:listen(0, [
        binary, {active, false}, {ip, {127, 0, 0, 1}}, {backlog, 1024}, {nodelay, true}, {reuseaddr, true}
    ]),
    Pairs = [new_worker() || _ <- lists:seq(1, Workers)],
    Acceptor = spawn_link(fun() -> receive go -> accept(Listener, Pairs, 1) end end),
    ok = gen_tcp:controlling_process(Listener, Acceptor),
    Acceptor ! go,
    {ok, Port} = inet:port(Listener),
    {Port, {Listener, Acceptor, Pairs}}.

stop({Listener, Acceptor, Pairs}) ->
    unlink(Acceptor),
    ok = gen_tcp:close(Listener),
    [
        begin
            ok = tokamak_loop:destroy(Loop),
            receive {'DOWN', Monitor, process, Worker, Reason} -> normal = Reason end
        end
     || {Loop, {Worker, Monitor}} <- Pairs
    ],
    ok.

new_worker() ->
    {ok, Loop} = tokamak_loop:new(),
    {Loop, spawn_monitor(fun() -> serve(Loop, #{}) end)}.

accept(Listener, [{Loop, {Worker, _}} = Pair | Pairs], Id) ->
    case gen_tcp:accept(Listener) of
        {ok, Socket} ->
            Worker ! {socket, Id, Socket},
            ok = tokamak_loop:adopt(Loop, Socket, Id),
            accept(Listener, Pairs ++ [Pair], Id + 1);
        {error, closed} ->
            ok
    end.

serve(Loop, Sockets) ->
    case tokamak_loop:poll(Loop, infinity) of
        {error, closed} -> ok;
        Events -> serve(Loop, lists:foldl(fun event/2, new_sockets(Sockets), Events))
    end.

%% They were sent before their first event was pushed.
new_sockets(Sockets) ->
    receive
        {socket, Id, Socket} -> new_sockets(Sockets#{Id => {Socket, <<>>}})
    after 0 -> Sockets
    end.

event({Id, socket_data, Data}, Sockets) ->
    #{Id := {Socket, Before}} = Sockets,
    Sockets#{Id := {Socket, respond(Socket, <<Before/binary, Data/binary>>)}};
event({Id, _SocketClosedOrError, _}, Sockets) ->
    maps:remove(Id, Sockets).

%% Answers each whole request; gives what is left.
respond(Socket, Data) ->
    case binary:split(Data, <<"\r\n\r\n">>) of
        [_Request, Rest] ->
            _ = gen_tcp:send(Socket, response()),
            respond(Socket, Rest);
        [Part] ->
            Part
    end.

response() ->
    <<"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\n", ?BODY>>.

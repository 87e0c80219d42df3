%% SPDX-License-Identifier: Apache-2.0
%% Sockets and ports of OTP whose messages become events of a loop.
-module(tokamak_adopt_tests).

-include_lib("eunit/include/eunit.hrl").

adopt_test_() ->
    tokamak_test:with_application([
        tokamak_test:cases([
            {Title ++ " (" ++ atom_to_list(Backend) ++ ")", fun() -> Test(Backend) end}
         || {Title, Test} <- on_both_backends(), Backend <- [inet, socket]
        ]),
        tokamak_test:cases([
            {"what was in the owner's mailbox becomes events, too", fun mailbox/0},
            {"a reset connection is one error", fun reset/0},
            {"a port's output and exit become events", fun port/0},
            {"a port's output keeps its order, whatever was in its owner's mailbox", fun port_order/0},
            {"a port without exit_status ends with undefined", fun port_without_status/0},
            {"a port opened with eof ends with it, and with its status if it has one", fun port_with_eof/0},
            {"a raw loop, a stranger's socket, a closed and a listening one are refused", fun refused/0},
            {"a socket that closes meanwhile is an error, and leaves no process", fun closed_meanwhile/0},
            {"a loop that ends meanwhile is closed", fun loop_ends_meanwhile/0},
            {"wrong arguments raise badarg", fun misuse/0}
        ])
    ]).

on_both_backends() ->
    [
        {"TCP: data comes, gen_tcp:send answers, the end comes once", fun tcp/1},
        {"TCP: a peer waits while nobody polls, and nothing is lost", fun back_pressure/1},
        {"TCP: a peer waits while its handler does not receive, and nothing is lost", fun handler_back_pressure/1},
        {"TCP: a peer that waits for its handler goes on when that dies", fun handler_dies/1},
        {"TCP: a socket that somebody closes is closed once", fun closed_here/1},
        {"TCP: the socket is closed when the loop ends", fun loop_ends/1},
        {"TCP: a socket whose adopter dies half-way is closed", fun adopter_dies/1},
        {"TCP: nothing is lost of a peer that closes while its socket is adopted", fun peer_closes_meanwhile/1},
        {"UDP: datagrams come with their sender", fun udp/1},
        {"UDP: datagrams in the owner's mailbox become events, too", fun udp_mailbox/1}
    ].

tcp(Backend) ->
    {ok, Loop} = tokamak_loop:new(),
    {Client, Server} = connection(Backend),
    ok = tokamak_loop:adopt(Loop, Server, 3),
    ok = gen_tcp:send(Client, "ping"),
    ?assertEqual([{3, socket_data, <<"ping">>}], poll(Loop, 1)),
    ok = gen_tcp:send(Server, "pong"),
    ?assertEqual({ok, <<"pong">>}, gen_tcp:recv(Client, 4, 5000)),
    [
        begin
            ok = gen_tcp:send(Client, <<N:32>>),
            ?assertEqual([{3, socket_data, <<N:32>>}], poll(Loop, 1))
        end
     || N <- lists:seq(1, 100)
    ],
    ok = gen_tcp:send(Client, "bye"),
    ok = gen_tcp:close(Client),
    ?assertEqual([{3, socket_data, <<"bye">>}, {3, socket_closed, undefined}], poll(Loop, 2)),
    ?assertEqual([], tokamak_loop:poll(Loop, 20)),
    ok = tokamak_loop:destroy(Loop).

back_pressure(Backend) ->
    {ok, Loop} = tokamak_loop:new(),
    {Client, Server} = connection(Backend),
    ok = tokamak_loop:adopt(Loop, Server, 3),
    Data = binary:copy(<<"0123456789">>, 2000000),
    Sender = spawn(fun() -> receive go -> ok end, ok = gen_tcp:send(Client, Data), gen_tcp:close(Client) end),
    ok = gen_tcp:controlling_process(Client, Sender),
    Sender ! go,
    tokamak_wait:until(fun() -> maps:get(queued, tokamak_loop:info(Loop)) =:= 16 end),
    receive after 100 -> ok end,
    ?assertMatch(#{queued := 16}, tokamak_loop:info(Loop)),
    ?assert(is_process_alive(Sender)),
    ?assert(Data =:= all(Loop, [])),
    ok = tokamak_loop:destroy(Loop).

all(Loop, Chunks) ->
    Events = tokamak_loop:poll(Loop, 5000),
    All = [Chunks, [Bin || {3, socket_data, Bin} <- Events]],
    case lists:last(Events) of
        {3, socket_closed, undefined} -> iolist_to_binary(All);
        {3, socket_data, _} -> all(Loop, All)
    end.

handler_back_pressure(Backend) ->
    {ok, Loop} = tokamak_loop:new(#{max_queue => 1000}),
    Handler = spawn(fun() -> receive {take, From, Reference} -> From ! {self(), received(Reference, [])} end end),
    Ref = tokamak_loop:register(Loop, 3, Handler),
    Data = binary:copy(<<"0123456789">>, 4_000_000),
    Sender = send_to_handler(Backend, Loop, Handler, Data),
    ok = tokamak_loop:post(Loop, 2, user, others_go_on),
    ?assertEqual([{2, user, others_go_on}], poll(Loop, 1)),
    Handler ! {take, self(), Ref},
    receive {Handler, Received} -> ?assert(Data =:= Received) after 30_000 -> erlang:error(data_missing) end,
    tokamak_wait:until(fun() -> not is_process_alive(Sender) end),
    ok = tokamak_loop:destroy(Loop).

handler_dies(Backend) ->
    {ok, Loop} = tokamak_loop:new(),
    Handler = spawn(fun() -> receive never -> ok end end),
    _ = tokamak_loop:register(Loop, 3, Handler),
    Sender = send_to_handler(Backend, Loop, Handler, binary:copy(<<"0123456789">>, 4_000_000)),
    exit(Handler, kill),
    ?assert(byte_size(all(Loop, [])) > 0),
    tokamak_wait:until(fun() -> not is_process_alive(Sender) end),
    ok = tokamak_loop:destroy(Loop).

%% Sends to a handler that does not receive, until as much is under way as may be.
send_to_handler(Backend, Loop, Handler, Data) ->
    {Client, Server} = connection(Backend),
    Sender = spawn(fun() -> receive go -> ok end, ok = gen_tcp:send(Client, Data), gen_tcp:close(Client) end),
    ok = gen_tcp:controlling_process(Client, Sender),
    ok = tokamak_loop:adopt(Loop, Server, 3),
    Sender ! go,
    tokamak_wait:until(fun() ->
        in_mailbox(Handler) >= 4 * 1024 * 1024 orelse maps:get(queued, tokamak_loop:info(Loop)) > 0
    end),
    receive after 200 -> ok end,
    ?assert(in_mailbox(Handler) =< 12 * 1024 * 1024),
    ?assert(maps:get(queued, tokamak_loop:info(Loop)) =< 16),
    ?assert(is_process_alive(Sender)),
    Sender.

in_mailbox(Pid) ->
    {messages, Messages} = process_info(Pid, messages),
    lists:sum([byte_size(Bin) || {tokamak, _, {event, 3, socket_data, Bin}} <- Messages]).

received(Reference, Chunks) ->
    receive
        {tokamak, Reference, {event, 3, socket_data, Bin}} -> received(Reference, [Chunks, Bin]);
        {tokamak, Reference, {event, 3, socket_closed, undefined}} -> iolist_to_binary(Chunks)
    after 10_000 -> data_missing
    end.

closed_here(Backend) ->
    {ok, Loop} = tokamak_loop:new(),
    {Client, Server} = connection(Backend),
    ok = tokamak_loop:adopt(Loop, Server, 3),
    ok = gen_tcp:close(Server),
    ?assertEqual([{3, socket_closed, undefined}], poll(Loop, 1)),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 5000)),
    ?assertEqual([], tokamak_loop:poll(Loop, 20)),
    ok = tokamak_loop:destroy(Loop).

adopter_dies(Backend) ->
    {ok, Loop} = tokamak_loop:new(#{name => ?MODULE}),
    {Client, Server} = connection(Backend),
    Adopter = spawn(fun() -> receive after infinity -> ok end end),
    Source = {tcp, Server, Loop, whereis(?MODULE), 3},
    {ok, Pid} = tokamak_loop_sup:start_adoption({Adopter, Source}),
    ok = gen_tcp:controlling_process(Server, Pid),
    exit(Adopter, kill),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 5000)),
    tokamak_test:wait_for_end(Pid),
    ok = tokamak_loop:destroy(Loop).

loop_ends(Backend) ->
    {ok, Loop} = tokamak_loop:new(),
    {Client, Server} = connection(Backend),
    ok = tokamak_loop:adopt(Loop, Server, 3),
    ok = tokamak_loop:destroy(Loop),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, 5000)).

%% Either the socket was closed before, and its messages are where they were, or they are events.
peer_closes_meanwhile(Backend) ->
    {ok, Loop} = tokamak_loop:new(),
    tokamak_test:repeat(300, fun() ->
        {Client, Server} = connection(Backend),
        ok = inet:setopts(Server, [{active, true}]),
        Peer = spawn(fun() -> send_and_close(Client) end),
        ok = gen_tcp:controlling_process(Client, Peer),
        Peer ! go,
        tokamak_test:keep_busy(rand:uniform(300)),
        Data =
            case tokamak_loop:adopt(Loop, Server, 3) of
                ok -> all(Loop, []);
                {error, einval} -> all_messages(Server)
            end,
        ?assertEqual({Backend, <<"hello">>}, {Backend, Data})
    end),
    ok = tokamak_loop:destroy(Loop).

send_and_close(Client) ->
    receive go -> ok end,
    ok = gen_tcp:send(Client, "hello"),
    tokamak_test:keep_busy(rand:uniform(200)),
    gen_tcp:close(Client).

all_messages(Socket) ->
    receive
        {tcp, Socket, Data} -> <<Data/binary, (all_messages(Socket))/binary>>;
        {tcp_closed, Socket} -> <<>>
    after 5000 -> error(no_end)
    end.

udp(Backend) ->
    {ok, Loop} = tokamak_loop:new(),
    {ok, Here} = gen_udp:open(0, backend(Backend) ++ [{ip, {127, 0, 0, 1}}]),
    {ok, There} = gen_udp:open(0, [binary, {ip, {127, 0, 0, 1}}, {active, false}]),
    {ok, HerePort} = inet:port(Here),
    {ok, TherePort} = inet:port(There),
    ok = tokamak_loop:adopt(Loop, Here, 4),
    [
        begin
            ok = gen_udp:send(There, {127, 0, 0, 1}, HerePort, <<N:16>>),
            ?assertEqual([{4, socket_data, {{127, 0, 0, 1}, TherePort, <<N:16>>}}], poll(Loop, 1))
        end
     || N <- lists:seq(1, 50)
    ],
    ok = gen_udp:send(Here, {127, 0, 0, 1}, TherePort, "back"),
    ?assertMatch({ok, {_, HerePort, <<"back">>}}, gen_udp:recv(There, 0, 5000)),
    ok = gen_udp:close(Here),
    ?assertEqual([{4, socket_closed, undefined}], poll(Loop, 1)),
    ok = tokamak_loop:destroy(Loop).

udp_mailbox(Backend) ->
    {ok, Loop} = tokamak_loop:new(),
    {ok, Here} = gen_udp:open(0, backend(Backend) ++ [binary, {ip, {127, 0, 0, 1}}, {active, true}]),
    {ok, There} = gen_udp:open(0, [binary, {ip, {127, 0, 0, 1}}]),
    {ok, HerePort} = inet:port(Here),
    {ok, TherePort} = inet:port(There),
    [ok = gen_udp:send(There, {127, 0, 0, 1}, HerePort, Data) || Data <- [<<"a">>, <<"b">>]],
    tokamak_wait:until(fun() -> process_info(self(), message_queue_len) =:= {message_queue_len, 2} end),
    ok = tokamak_loop:adopt(Loop, Here, 4),
    ?assertEqual([{4, socket_data, {{127, 0, 0, 1}, TherePort, Data}} || Data <- [<<"a">>, <<"b">>]], poll(Loop, 2)),
    ok = tokamak_loop:destroy(Loop).

mailbox() ->
    {ok, Loop} = tokamak_loop:new(),
    {Client, Server} = connection(inet),
    ok = inet:setopts(Server, [{active, true}]),
    ok = gen_tcp:send(Client, "early"),
    tokamak_wait:until(fun() -> process_info(self(), message_queue_len) =:= {message_queue_len, 1} end),
    ok = tokamak_loop:adopt(Loop, Server, 3),
    ?assertEqual([{3, socket_data, <<"early">>}], poll(Loop, 1)),
    ok = gen_tcp:close(Client),
    ?assertEqual([{3, socket_closed, undefined}], poll(Loop, 1)),
    ok = tokamak_loop:destroy(Loop).

reset() ->
    {ok, Loop} = tokamak_loop:new(),
    {Client, Server} = connection(inet),
    ok = inet:setopts(Server, [{show_econnreset, true}]),
    ok = tokamak_loop:adopt(Loop, Server, 3),
    ok = inet:setopts(Client, [{linger, {true, 0}}]),
    ok = gen_tcp:close(Client),
    ?assertEqual([{3, socket_error, econnreset}], poll(Loop, 1)),
    ?assertEqual([], tokamak_loop:poll(Loop, 50)),
    ok = tokamak_loop:destroy(Loop).

port() ->
    {ok, Loop} = tokamak_loop:new(),
    Port = open_port({spawn, "sh -c 'read x; echo got $x; exit 7'"}, [binary, exit_status]),
    ok = tokamak_loop:adopt(Loop, Port, 6),
    true = port_command(Port, "it\n"),
    ?assertEqual([{6, subprocess_stdout, <<"got it\n">>}, {6, subprocess_exit, 7}], poll(Loop, 2)),
    ?assertEqual([], tokamak_loop:poll(Loop, 20)),
    ok = tokamak_loop:destroy(Loop).

%% The messages before are there to be looked through, and the port goes on meanwhile.
port_order() ->
    Others = 20,
    Lines = 100000,
    [self() ! {other, N} || N <- lists:seq(1, Others)],
    tokamak_test:repeat(3, fun() ->
        {ok, Loop} = tokamak_loop:new(),
        Command = "sh -c 'seq 1 " ++ integer_to_list(Lines) ++ "; read x'",
        Port = open_port({spawn, Command}, [{line, 20}, binary, exit_status]),
        tokamak_wait:until(fun() -> process_info(self(), message_queue_len) > {message_queue_len, Others} end),
        ok = tokamak_loop:adopt(Loop, Port, 6),
        true = port_command(Port, "end\n"),
        ?assertEqual(in_order, lines(Loop, 1, Lines)),
        ?assertEqual({message_queue_len, Others}, process_info(self(), message_queue_len)),
        ok = tokamak_loop:destroy(Loop)
    end).

lines(Loop, First, Last) ->
    [_ | _] = Events = tokamak_loop:poll(Loop, 5000),
    case check_lines(Events, First) of
        {exit, Next} when Next =:= Last + 1 -> in_order;
        {more, Next} -> lines(Loop, Next, Last);
        Other -> Other
    end.

check_lines([], Next) -> {more, Next};
check_lines([{6, subprocess_exit, 0}], Next) -> {exit, Next};
check_lines([{6, subprocess_stdout, {eol, Line}} | Events], Next) ->
    case binary_to_integer(Line) of
        Next -> check_lines(Events, Next + 1);
        Other -> {expected, Next, came, Other}
    end.

port_without_status() ->
    {ok, Loop} = tokamak_loop:new(),
    Port = open_port({spawn, "sh -c 'read x; echo got $x; exit 7'"}, [binary]),
    ok = tokamak_loop:adopt(Loop, Port, 6),
    true = port_command(Port, "it\n"),
    ?assertEqual([{6, subprocess_stdout, <<"got it\n">>}, {6, subprocess_exit, undefined}], poll(Loop, 2)),
    ok = tokamak_loop:destroy(Loop).

port_with_eof() ->
    {ok, Loop} = tokamak_loop:new(),
    [
        begin
            Port = open_port({spawn, "sh -c 'read x; echo got $x; exit 7'"}, [binary, eof | Options]),
            ok = tokamak_loop:adopt(Loop, Port, 6),
            true = port_command(Port, "it\n"),
            ?assertEqual([{6, subprocess_stdout, <<"got it\n">>}, {6, subprocess_exit, Status}], poll(Loop, 2)),
            tokamak_wait:until(fun() -> erlang:port_info(Port) =:= undefined end)
        end
     || {Options, Status} <- [{[], undefined}, {[exit_status], 7}]
    ],
    ok = tokamak_loop:destroy(Loop).

refused() ->
    {ok, Raw} = tokamak_loop:open(),
    {ok, Loop} = tokamak_loop:new(),
    {Client, Server} = connection(inet),
    ?assertEqual({error, not_supported}, tokamak_loop:adopt(Raw, Server, 1)),
    Self = self(),
    spawn_link(fun() -> Self ! {stranger, tokamak_loop:adopt(Loop, Server, 1)} end),
    receive {stranger, Result} -> ?assertEqual({error, not_owner}, Result) end,
    ok = gen_tcp:close(Server),
    ?assertEqual({error, einval}, tokamak_loop:adopt(Loop, Server, 1)),
    {ok, Listener} = gen_tcp:listen(0, []),
    ?assertEqual({error, einval}, tokamak_loop:adopt(Loop, Listener, 1)),
    ok = tokamak_loop:destroy(Loop),
    ?assertEqual({error, closed}, tokamak_loop:adopt(Loop, Client, 1)),
    ok = tokamak_loop:destroy(Raw).

%% The kind was looked up while they were open.
closed_meanwhile() ->
    {ok, Loop} = tokamak_loop:new(#{name => ?MODULE}),
    {_, Tcp} = connection(inet),
    ok = gen_tcp:close(Tcp),
    {ok, Udp} = gen_udp:open(0),
    ok = gen_udp:close(Udp),
    Port = open_port({spawn, "cat"}, []),
    true = port_close(Port),
    Before = loop_processes(),
    [
        ?assertEqual({error, einval}, tokamak_adoption:adopt({Kind, Closed, Loop, whereis(?MODULE), 1}))
     || {Kind, Closed} <- [{tcp, Tcp}, {udp, Udp}, {port, Port}]
    ],
    tokamak_test:wait_for(Before, fun loop_processes/0),
    ok = tokamak_loop:destroy(Loop).

%% Its process has ended since it was looked up.
loop_ends_meanwhile() ->
    {ok, Loop} = tokamak_loop:new(#{name => ?MODULE}),
    Server = whereis(?MODULE),
    ok = tokamak_loop:destroy(Loop),
    tokamak_test:wait_for_end(Server),
    tokamak_test:repeat(300, fun() ->
        {_, Socket} = connection(inet),
        ?assertEqual({error, closed}, tokamak_adoption:adopt({tcp, Socket, Loop, Server, 1})),
        gen_tcp:close(Socket)
    end).

misuse() ->
    {ok, Loop} = tokamak_loop:new(),
    {Client, _} = connection(inet),
    ?assertError(badarg, tokamak_loop:adopt(Loop, self(), 1)),
    ?assertError(badarg, tokamak_loop:adopt(make_ref(), Client, 1)),
    ?assertError(badarg, tokamak_loop:adopt(Loop, Client, 0)),
    ok = tokamak_loop:destroy(Loop).

%%% Helpers

%% The processes of loops and of what they adopted.
loop_processes() ->
    lists:sort([Pid || {_, Pid, _, _} <- supervisor:which_children(tokamak_loop_sup)]).

poll(_Loop, N) when N =< 0 -> [];
poll(Loop, N) ->
    [_ | _] = Events = tokamak_loop:poll(Loop, 5000),
    Events ++ poll(Loop, N - length(Events)).

connection(Backend) ->
    Options = backend(Backend) ++ [binary, {active, false}],
    {ok, Listener} = gen_tcp:listen(0, Options ++ [{ip, {127, 0, 0, 1}}]),
    {ok, {_, Port}} = inet:sockname(Listener),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    {ok, Server} = gen_tcp:accept(Listener, 5000),
    ok = gen_tcp:close(Listener),
    {Client, Server}.

backend(inet) -> [];
backend(socket) -> [{inet_backend, socket}].

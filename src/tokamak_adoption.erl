%% SPDX-License-Identifier: Apache-2.0
%% @doc The process that owns one adopted socket or port: it makes events of its messages.
%%
%% Credit: a socket is read for `{active, ?WINDOW}' messages. With the one that uses the credit up, the loop is asked
%% to say when it is taken; all before it were taken then, too, and the socket gets its next credit.
%% @private
-module(tokamak_adoption).

-export([kind/1, adopt/1]).
-export([start_link/1, init/1]).
-export_type([source/0, kind/0]).

-type kind() :: tcp | udp | port.
-type source() :: {kind(), term(), tokamak_loop:loop(), pid(), tokamak_loop:callback_id()}.
%% A socket with its loop, the loop's process and the callback id.

%% Messages of a socket that are under way or wait in the loop.
-define(WINDOW, 16).
%% What `inet:setopts/2' says of a socket that was closed.
-define(IS_GONE(Reason), (Reason =:= einval orelse Reason =:= closed)).

-record(state, {
    kind :: kind(),
    socket :: term(),
    loop :: tokamak_loop:loop(),
    id :: tokamak_loop:callback_id(),
    server :: reference(),
    monitor :: reference(),
    %% Messages until the credit is used up.
    left = 0 :: non_neg_integer(),
    %% What the loop says when the last one is taken.
    taken :: reference() | undefined,
    %% Messages that come before those in the mailbox.
    earlier = [] :: [term()],
    %% 0 when the socket or port is gone: what is in the mailbox then is all there is.
    patience = infinity :: infinity | 0
}).

%% @doc What it is; `closed': a port that is closed; `error': neither.
-spec kind(term()) -> kind() | closed | error.
kind(Port) when is_port(Port) ->
    case erlang:port_info(Port, name) of
        {name, "tcp_inet"} -> tcp;
        {name, "udp_inet"} -> udp;
        {name, _} -> port;
        undefined -> closed
    end;
kind({'$inet', gen_tcp_socket, _}) ->
    tcp;
kind({'$inet', gen_udp_socket, _}) ->
    udp;
kind(_) ->
    error.

%% @doc Hands a socket of the calling process over.
-spec adopt(source()) -> ok | {error, term()}.
adopt({Kind, Socket, _, _, _} = Source) ->
    case tokamak_loop_sup:start_adoption({self(), Source}) of
        {ok, Pid} ->
            case try_to_hand_over(Kind, Socket, Pid) of
                {ok, Earlier} ->
                    Ref = make_ref(),
                    Monitor = monitor(process, Pid),
                    Pid ! {adopt, Ref, Earlier},
                    receive
                        {Ref, Result} ->
                            demonitor(Monitor, [flush]),
                            Result;
                        {'DOWN', Monitor, process, Pid, _} ->
                            {error, closed}
                    end;
                {error, _} = Error ->
                    refused(Pid, Error)
            end;
        {error, shutdown} ->
            {error, closed};
        {error, _} = Error ->
            Error
    end.

%% Its process ends with the loop: nothing can be handed over to it then.
refused(Pid, Error) ->
    case is_process_alive(Pid) of
        true ->
            Pid ! stop,
            Error;
        false ->
            {error, closed}
    end.

%% With the messages that the process is still to be given, which come before those in its mailbox.
%% OTP raises where a socket closes half-way.
try_to_hand_over(Kind, Socket, Pid) ->
    try
        hand_over(Kind, Socket, Pid)
    catch
        _:_ -> {error, einval}
    end.

hand_over(tcp, Socket, Pid) ->
    case listens(Socket) of
        true -> {error, einval};
        false -> forwarded(gen_tcp:controlling_process(Socket, Pid))
    end;
hand_over(udp, Socket, Pid) ->
    case forwarded(gen_udp:controlling_process(Socket, Pid)) of
        {ok, []} -> {ok, datagrams(Socket)};
        {error, _} = Error -> Error
    end;
hand_over(port, Port, Pid) ->
    case erlang:port_info(Port, connected) of
        {connected, Owner} when Owner =:= self() ->
            true = erlang:port_connect(Port, Pid),
            true = unlink(Port),
            {ok, messages(Port)};
        undefined ->
            {error, einval};
        _ ->
            {error, not_owner}
    end.

%% It would take `{active, N}' all the same.
listens(Socket) ->
    Info = inet:info(Socket),
    States = maps:get(states, Info, []) ++ maps:get(rstates, Info, []),
    lists:member(listen, States) orelse lists:member(listening, States).

forwarded(ok) -> {ok, []};
forwarded({error, badarg}) -> {error, einval};
forwarded({error, closed}) -> {error, einval};
forwarded({error, _} = Error) -> Error.

%% With the socket backend OTP forwards none of them.
datagrams(Socket) ->
    receive
        {udp, Socket, _IP, _Port, _Data} = Message -> [Message | datagrams(Socket)];
        {udp, Socket, _IP, _Port, _Ancillary, _Data} = Message -> [Message | datagrams(Socket)]
    after 0 -> []
    end.

%% What came before the port changed hands. It is not sent one by one: the port sends to its new owner meanwhile.
messages(Port) ->
    receive
        {Port, _} = Message -> [Message | messages(Port)];
        {'EXIT', Port, _} -> messages(Port)
    after 0 -> []
    end.

%% @private
-spec start_link({Adopter :: pid(), source()}) -> {ok, pid()}.
start_link(AdopterAndSource) ->
    {ok, proc_lib:spawn_link(?MODULE, init, [AdopterAndSource])}.

%% @private
-spec init({Adopter :: pid(), source()}) -> ok.
init({Adopter, {Kind, Socket, Loop, Server, Id}}) ->
    process_flag(trap_exit, true),
    Monitor = monitor(process, Server),
    AdopterMonitor = monitor(process, Adopter),
    receive
        {adopt, Ref, Earlier} ->
            demonitor(AdopterMonitor, [flush]),
            State = #state{
                kind = Kind,
                socket = Socket,
                loop = Loop,
                id = Id,
                server = Monitor,
                monitor = watch(Kind, Socket),
                earlier = Earlier
            },
            case begin_reading(State) of
                {ok, Reading} ->
                    Adopter ! {Ref, ok},
                    receive_all(Reading);
                %% It was open when it changed hands. What it gave until then is here, and in no other mailbox.
                {error, Reason} when ?IS_GONE(Reason) ->
                    Adopter ! {Ref, ok},
                    gone(State);
                {error, _} = Error ->
                    Adopter ! {Ref, Error},
                    close(State)
            end;
        stop ->
            ok;
        %% The loop or its adopter has ended. A socket that is this process's already ends with it.
        {'DOWN', _, process, _, _} ->
            ok
    end.

watch(port, Port) -> erlang:monitor(port, Port);
watch(_, Socket) -> inet:monitor(Socket).

begin_reading(#state{kind = port} = State) ->
    {ok, State};
begin_reading(#state{socket = Socket} = State) ->
    %% `false' first: the credit is added to what an active socket had.
    case inet:setopts(Socket, [{mode, binary}, {active, false}]) of
        ok -> give_credit(State);
        {error, _} = Error -> Error
    end.

give_credit(#state{socket = Socket} = State) ->
    case inet:setopts(Socket, [{active, ?WINDOW}]) of
        ok -> {ok, State#state{left = ?WINDOW, taken = undefined}};
        {error, _} = Error -> Error
    end.

receive_all(#state{earlier = [Message | Earlier]} = State) ->
    handle(Message, State#state{earlier = Earlier});
receive_all(State) ->
    receive
        Message -> handle(Message, State)
    after State#state.patience ->
        last(end_of(State#state.kind), undefined, State)
    end.

handle({Tag, Socket, Data}, #state{socket = Socket, kind = tcp} = State) when Tag =:= tcp; Tag =:= http ->
    data(Data, State);
handle({tcp_closed, Socket}, #state{socket = Socket} = State) ->
    last(socket_closed, undefined, State);
handle({Error, Socket, Reason}, #state{socket = Socket} = State) when Error =:= tcp_error; Error =:= udp_error ->
    last(socket_error, Reason, State);
handle({udp, Socket, IP, Port, Data}, #state{socket = Socket} = State) ->
    data({IP, Port, Data}, State);
handle({udp, Socket, IP, Port, _Ancillary, Data}, #state{socket = Socket} = State) ->
    data({IP, Port, Data}, State);
handle({tokamak, Taken, taken}, #state{taken = Taken} = State) ->
    more(State);
handle({Port, {data, Data}}, #state{socket = Port} = State) ->
    deliver(subprocess_stdout, Data, undefined, State);
handle({Port, {exit_status, Status}}, #state{socket = Port} = State) ->
    last(subprocess_exit, Status, State);
%% With `eof' the port stays open. Its status, if it gives one, comes before: the VM waits for it.
handle({Port, eof}, #state{socket = Port, kind = port} = State) ->
    gone(State);
handle({'DOWN', Monitor, _, _, _}, #state{monitor = Monitor} = State) ->
    gone(State);
handle({'DOWN', Monitor, process, _, _}, #state{server = Monitor} = State) ->
    close(State);
handle({'EXIT', From, Reason}, #state{socket = Socket} = State) when From =/= Socket, Reason =/= normal ->
    close(State);
handle(_Message, State) ->
    receive_all(State).

end_of(port) -> subprocess_exit;
end_of(_) -> socket_closed.

%% The one that uses up the credit is acknowledged when it is taken. One that was in the mailbox of the owner before
%% is beyond the credit.
data(Data, #state{left = 1} = State) ->
    Taken = make_ref(),
    deliver(socket_data, Data, Taken, State#state{left = 0, taken = Taken});
data(Data, #state{left = Left} = State) ->
    deliver(socket_data, Data, undefined, State#state{left = max(0, Left - 1)}).

deliver(Type, Data, Taken, #state{loop = Loop, id = Id} = State) ->
    case tokamak_nif:loop_deliver(Loop, Id, Type, Data, Taken) of
        ok -> receive_all(State);
        {error, closed} -> close(State)
    end.

more(State) ->
    case give_credit(State) of
        {ok, Reading} ->
            receive_all(Reading);
        {error, Reason} when ?IS_GONE(Reason) ->
            gone(State);
        {error, Reason} ->
            last(socket_error, Reason, State)
    end.

%% It was closed by somebody: what it gave before that comes first.
gone(State) ->
    receive_all(State#state{patience = 0}).

last(Type, Data, #state{loop = Loop, id = Id} = State) ->
    _ = tokamak_nif:loop_deliver(Loop, Id, Type, Data, undefined),
    close(State).

close(#state{kind = port, socket = Port}) ->
    try
        erlang:port_close(Port)
    catch
        error:_ -> true
    end,
    ok;
close(#state{kind = tcp, socket = Socket}) ->
    gen_tcp:close(Socket);
close(#state{kind = udp, socket = Socket}) ->
    gen_udp:close(Socket).
